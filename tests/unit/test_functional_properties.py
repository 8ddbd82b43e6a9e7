"""What must hold whatever the numbers are: signs, fixed points, invariances, sums over separate parts."""

import math

import pytest
import torch
from helpers import assert_close, gradient_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss

DIRECTIONS = pytest.mark.parametrize('kl_direction', ['teacher_student', 'student_teacher'])
SUPPORTS = pytest.mark.parametrize('affinity_support', ['all', 'neighbors'])
NORMALIZE = pytest.mark.parametrize('normalize_tokens', [True, False])


def _tokens(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _local_options(kl_direction='teacher_student', affinity_support='all', normalize_tokens=True):
    return {
        'num_neighbors': 4,
        'sigma': 0.5 if normalize_tokens else 4.0,
        'kl_direction': kl_direction,
        'affinity_support': affinity_support,
        'normalize_tokens': normalize_tokens,
    }


def _rotation(width):
    return torch.linalg.qr(_tokens(width, width)).Q


@NORMALIZE
@SUPPORTS
@DIRECTIONS
@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_a_student_equal_to_its_teacher_has_no_local_loss(
    kl_direction, affinity_support, normalize_tokens, dtype, atol
):
    tokens = torch.randn(20, 6, dtype=dtype, requires_grad=True)
    options = _local_options(kl_direction, affinity_support, normalize_tokens)
    loss = local_preserving_loss(tokens, tokens, **options)
    assert_close(loss, 0.0, atol=atol)
    assert_close(gradient_of(loss, tokens), torch.zeros(20, 6), atol=atol)


@NORMALIZE
@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float64, 1e-14), (torch.float32, 1e-8)])
def test_a_student_equal_to_its_teacher_has_no_contextual_loss(normalize_tokens, dtype, atol):
    tokens = torch.randn(2, 9, 6, dtype=dtype, requires_grad=True)
    loss = contextual_loss(tokens, tokens, normalize_tokens=normalize_tokens)
    assert_close(loss, 0.0, atol=atol)
    assert_close(gradient_of(loss, tokens), torch.zeros(2, 9, 6), atol=atol)


@NORMALIZE
@SUPPORTS
@DIRECTIONS
@settings(max_examples=15, deadline=None)
@given(
    num_tokens=st.integers(2, 14), num_neighbors=st.integers(1, 5), sigma=st.floats(0.05, 20), seed=st.integers(0, 99)
)
def test_the_local_loss_is_never_negative(
    kl_direction, affinity_support, normalize_tokens, num_tokens, num_neighbors, sigma, seed
):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(num_tokens, 3, dtype=torch.float64, generator=generator)
    teacher = torch.randn(num_tokens, 4, dtype=torch.float64, generator=generator)
    options = _local_options(kl_direction, affinity_support, normalize_tokens) | {'sigma': sigma}
    options['num_neighbors'] = min(num_neighbors, num_tokens - 1)
    assert float(local_preserving_loss(student, teacher, **options)) >= -1e-12


@SUPPORTS
@DIRECTIONS
def test_a_student_close_to_its_teacher_keeps_its_digits_in_float32(kl_direction, affinity_support):
    """The KL of a row is some 1e-6 and log Z is log 500: a difference of two logarithms would lose the value."""
    teacher = torch.randn(500, 16)
    student = teacher + 0.001 * torch.randn(500, 16)
    options = _local_options(kl_direction, affinity_support)
    expected = local_preserving_loss(student.double(), teacher.double(), **options)
    assert_close(local_preserving_loss(student, teacher, **options), expected, rtol=3e-5)


@NORMALIZE
@SUPPORTS
def test_a_permutation_of_the_tokens_leaves_the_losses(affinity_support, normalize_tokens):
    student, teacher, order = _tokens(15, 5), _tokens(15, 5), torch.randperm(15)
    options = _local_options(affinity_support=affinity_support, normalize_tokens=normalize_tokens)
    expected = local_preserving_loss(student, teacher, **options)
    assert_close(local_preserving_loss(student[order], teacher[order], **options), expected)
    expected = global_relationship_loss(student, teacher)
    assert_close(global_relationship_loss(student[order], teacher[order]), expected)
    student, teacher = student.view(3, 5, 5), teacher.view(3, 5, 5)
    expected = contextual_loss(student, teacher, normalize_tokens=normalize_tokens)
    images, cells = torch.randperm(3), torch.randperm(5)
    permuted_student, permuted_teacher = student[images][:, cells], teacher[images][:, cells]
    assert_close(contextual_loss(permuted_student, permuted_teacher, normalize_tokens=normalize_tokens), expected)


def test_permuting_the_student_alone_changes_every_loss():
    student, teacher = _tokens(12, 5), _tokens(12, 5)
    shifted = student.roll(1, 0)
    assert abs(local_preserving_loss(shifted, teacher) - local_preserving_loss(student, teacher)) > 1e-6
    assert abs(global_relationship_loss(shifted, teacher) - global_relationship_loss(student, teacher)) > 1e-3
    student, shifted, teacher = student[None], shifted[None], teacher[None]
    assert abs(contextual_loss(shifted, teacher) - contextual_loss(student, teacher)) > 1e-6


@NORMALIZE
@SUPPORTS
def test_rotating_the_features_of_one_model_leaves_local_and_contextual(affinity_support, normalize_tokens):
    student, teacher, rotation = _tokens(15, 5), _tokens(15, 7), _rotation(5)
    options = _local_options(affinity_support=affinity_support, normalize_tokens=normalize_tokens)
    expected = local_preserving_loss(student, teacher, **options)
    assert_close(local_preserving_loss(student @ rotation, teacher, **options), expected, rtol=1e-8)
    student, teacher = student.view(3, 5, 5), teacher.view(3, 5, 7)
    expected = contextual_loss(student, teacher, normalize_tokens=normalize_tokens)
    assert_close(contextual_loss(student @ rotation, teacher, normalize_tokens=normalize_tokens), expected, rtol=1e-8)


def test_rotating_both_models_alike_leaves_the_global_loss():
    student, teacher, rotation = _tokens(9, 5), _tokens(9, 5), _rotation(5)
    assert_close(
        global_relationship_loss(student @ rotation, teacher @ rotation),
        global_relationship_loss(student, teacher),
        rtol=1e-8,
    )


@SUPPORTS
@DIRECTIONS
def test_translating_one_model_leaves_the_unnormalized_local_loss(kl_direction, affinity_support):
    student, teacher = _tokens(15, 5), _tokens(15, 7)
    options = _local_options(kl_direction, affinity_support, normalize_tokens=False)
    expected = local_preserving_loss(student, teacher, **options)
    assert_close(local_preserving_loss(student + 10 * _tokens(5), teacher, **options), expected, rtol=1e-8)
    assert_close(local_preserving_loss(student, teacher - 7 * _tokens(7), **options), expected, rtol=1e-8)


def test_translating_in_float32_leaves_the_unnormalized_local_loss():
    """Offset 1000 is a multiple of the grid of the values, so the translated input is the same graph exactly."""
    student, teacher = (torch.randn(40, 8) * 1024).round() / 1024, torch.randn(40, 8)
    options = _local_options(normalize_tokens=False)
    expected = local_preserving_loss(student, teacher, **options)
    assert_close(local_preserving_loss(student + 1000, teacher, **options), expected, rtol=1e-5)


@SUPPORTS
def test_scaling_tokens_by_positive_numbers_leaves_the_normalized_losses(affinity_support):
    student, teacher, scales = _tokens(15, 5), _tokens(15, 5), torch.logspace(-5, 5, 15, dtype=torch.float64)[:, None]
    options = _local_options(affinity_support=affinity_support)
    expected = local_preserving_loss(student, teacher, **options)
    assert_close(local_preserving_loss(student * scales, teacher * scales.flip(0), **options), expected, rtol=1e-8)
    expected = global_relationship_loss(student, teacher)
    assert_close(global_relationship_loss(student * scales, teacher * scales.flip(0)), expected, rtol=1e-8)
    images, teacher_images, scales = student.view(3, 5, 5), teacher.view(3, 5, 5), scales.view(3, 5, 1)
    expected = contextual_loss(images, teacher_images, normalize_tokens=True)
    assert_close(contextual_loss(images * scales, teacher_images, normalize_tokens=True), expected, rtol=1e-8)


def test_scaling_distances_and_sigma_together_leaves_the_unnormalized_local_loss():
    """Distances grow by 3, their squares by 9: sigma (not its square) must grow by 9."""
    student, teacher = _tokens(15, 5), _tokens(15, 7)
    options = _local_options(normalize_tokens=False)
    expected = local_preserving_loss(student, teacher, **options)
    options['sigma'] *= 9
    assert_close(local_preserving_loss(3 * student, 3 * teacher, **options), expected)


def test_far_away_images_add_their_own_local_loss():
    """With the neighbours as support, two groups out of each other's reach do not see each other."""
    student, teacher, far_student, far_teacher = _tokens(12, 5), _tokens(12, 7), _tokens(9, 5), _tokens(9, 7)
    options = _local_options(affinity_support='neighbors', normalize_tokens=False)
    expected = local_preserving_loss(student, teacher, **options)
    expected = expected + local_preserving_loss(far_student, far_teacher, **options)
    both = torch.cat([student, far_student + 500]), torch.cat([teacher, far_teacher + 500])
    assert_close(local_preserving_loss(*both, **options), expected, rtol=1e-8)


def test_images_do_not_see_each_other_in_the_contextual_loss():
    student, teacher = _tokens(4, 5, 3), _tokens(4, 5, 6)
    alone = torch.stack([contextual_loss(student[[b]], teacher[[b]]) for b in range(4)])
    assert_close(contextual_loss(student, teacher), alone.mean())
    alone = torch.stack([contextual_loss(student[[b]], teacher[[b]], reduction='batchmean') for b in range(4)])
    assert_close(contextual_loss(student, teacher, reduction='batchmean'), alone.mean())


def test_reductions_differ_by_the_count_they_name():
    student, teacher = _tokens(12, 5), _tokens(12, 5)
    for loss in (local_preserving_loss, global_relationship_loss):
        assert_close(loss(student, teacher, reduction='sum'), 12 * loss(student, teacher, reduction='mean'))
    student, teacher = student.view(3, 4, 5), teacher.view(3, 4, 5)
    mean = contextual_loss(student, teacher, reduction='mean')
    assert_close(contextual_loss(student, teacher, reduction='batchmean'), 16 * mean)


@pytest.mark.parametrize('temperature', [0.05, 0.1, 2.0])
def test_equal_teacher_tokens_make_the_global_loss_log_m(temperature):
    student, teacher = _tokens(11, 5), _tokens(1, 5).repeat(11, 1)
    assert_close(global_relationship_loss(student, teacher, temperature), math.log(11))


@settings(max_examples=25, deadline=None)
@given(num_tokens=st.integers(1, 14), width=st.integers(1, 6), temperature=st.floats(0.02, 5), seed=st.integers(0, 99))
def test_the_global_loss_is_never_negative(num_tokens, width, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, num_tokens, width, dtype=torch.float64, generator=generator)
    assert float(global_relationship_loss(student, teacher, temperature)) >= -1e-12


def test_a_sharper_temperature_rewards_a_matching_student():
    tokens = torch.eye(8, dtype=torch.float64)
    losses = [float(global_relationship_loss(tokens, tokens, temperature)) for temperature in (1.0, 0.5, 0.1, 0.05)]
    assert losses == sorted(losses, reverse=True)
    assert_close(losses[0], math.log1p(7 * math.exp(-1)))
