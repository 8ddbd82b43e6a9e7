"""What must hold whatever the numbers are: signs, fixed points, invariances, sums over separate parts."""

import math

import pytest
import torch
from helpers import assert_close, gradient_of
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_table import EVERY, WAYS

from trg_torchdistill import _blocks
from trg_torchdistill.diagnostics import local_gradient
from trg_torchdistill.functional import (
    EDGE_DIRECTIONS,
    EDGES,
    ROW_DISTRIBUTIONS,
    LocalTerm,
    contextual_loss,
    global_relationship_loss,
    local_preserving_loss,
)

LOCAL = [name for name in EVERY if name.startswith('local') and 'mean' not in name]
CONTEXTUAL = ['contextual', 'contextual, unit', 'TokenContextualLoss']
UNIT = [*(name for name in LOCAL if 'raw' not in name), 'global', 'contextual, unit', 'TRGLoss']
RAW = [name for name in LOCAL if 'raw' in name]
OF_ONE_GRAPH = [*LOCAL, 'global', 'TRGLoss']


def _tokens(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _permuted(student, teacher):
    images, cells = torch.randperm(3), torch.randperm(5)
    return student[images][:, cells], teacher[images][:, cells]


def _shuffled(student, teacher):
    order = torch.randperm(15)
    return tuple(tokens.flatten(0, 1)[order].view_as(tokens) for tokens in (student, teacher))


def _rotated(student, teacher):
    return student @ torch.linalg.qr(_tokens(5, 5)).Q, teacher


def _rotated_alike(student, teacher):
    rotation = torch.linalg.qr(_tokens(5, 5)).Q
    return student @ rotation, teacher @ rotation


def _translated(student, teacher):
    return student + 10 * _tokens(student.shape[2]), teacher - 7 * _tokens(teacher.shape[2])


def _scaled(student, teacher):
    scales = torch.logspace(-5, 5, 15, dtype=torch.float64).view(3, 5, 1)
    return student * scales, teacher * scales.flip(0)


INVARIANCES = {
    'a permutation of images and of cells': (_permuted, [*LOCAL, *CONTEXTUAL, 'global', 'TRGLoss']),
    'a permutation of all tokens': (_shuffled, OF_ONE_GRAPH),
    'a rotation of one model': (_rotated, [*LOCAL, *CONTEXTUAL]),
    'the same rotation of both models': (_rotated_alike, ['global', 'TRGLoss']),
    'translations of raw tokens': (_translated, RAW),
    'a positive number for each token': (_scaled, UNIT),
}


@pytest.mark.parametrize('invariance', INVARIANCES)
def test_a_loss_stays_as_it_is_after(invariance):
    change, names = INVARIANCES[invariance]
    for name in names:
        student, teacher = (tokens.detach() for tokens in EVERY[name].pair((3, 5, 5), torch.float64, scale=1.0))
        assert_close(EVERY[name](*change(student, teacher)), EVERY[name](student, teacher), rtol=1e-8)


@pytest.mark.parametrize('name', WAYS)
def test_permuting_the_student_alone_changes_every_loss(name):
    student, teacher = EVERY[name].pair((1, 12, 5), torch.float64, scale=1.0)
    assert abs(EVERY[name](student.roll(1, 1), teacher) - EVERY[name](student, teacher)) > 1e-6


@pytest.mark.parametrize('name', [*LOCAL, *CONTEXTUAL])
@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=str)
def test_a_student_equal_to_its_teacher_has_no_loss(name, dtype, atol):
    tokens = torch.randn(2, 9, 6, dtype=dtype, requires_grad=True)
    loss = EVERY[name](tokens, tokens)
    assert_close(loss, 0.0, atol=atol)
    assert_close(gradient_of(loss, tokens), torch.zeros(2, 9, 6), atol=atol)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', [*LOCAL, 'global', 'TRGLoss', 'TokenContextualLoss'])
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)), seed=st.integers(0, 99), data=st.data()
)
def test_no_loss_is_negative(name, shape, seed, data):
    numbers = {'local': ('sigma', st.floats(0.05, 20)), 'global': ('temperature', st.floats(0.02, 5))}
    number, values = numbers.get(name.split(',')[0], (None, st.none()))
    torch.manual_seed(seed)
    student, teacher = EVERY[name].pair(shape, torch.float64, scale=1.0)
    assert float(EVERY[name](student, teacher, **({number: data.draw(values)} if number else {})).detach()) >= -1e-12


@pytest.mark.parametrize('name', [name for name in LOCAL if 'raw' not in name])
def test_a_student_close_to_its_teacher_keeps_its_digits_in_float32(name):
    """The KL of a row is some 1e-6 and log Z is log 500: a difference of two logarithms would lose the value."""
    has_same_edges = not {'teacher', 'union', 'complete'}.isdisjoint(name.split(', '))  # where it is smaller still
    teacher, noise = torch.randn(1, 500, 16), 0.1 if has_same_edges else 0.001
    student = (teacher + noise * torch.randn(1, 500, 16)).requires_grad_()
    exact = student.detach().double().requires_grad_()
    options = {} if 'complete' in name else {'num_neighbors': 4}
    value, expected = EVERY[name](student, teacher, **options), EVERY[name](exact, teacher.double(), **options)
    assert_close(value, expected, rtol=3e-5)
    wanted = gradient_of(expected, exact)
    assert float((gradient_of(value, student) - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize('name', [*LOCAL, 'global, teacher', 'global, teacher, queue', 'TRGLoss, lasting'])
def test_with_equal_tokens_loss_and_gradient_are_0(name):
    tokens = torch.randn(2, 8, 5)
    student = tokens.clone().requires_grad_()
    options = {'target_temperature': None} if 'global' in name else {}
    options |= {'target_temperature': 0.1, 'temperature': 0.1} if 'lasting' in name else {}
    value = EVERY[name](student, tokens, **options)
    assert_close(value, 0.0, rtol=0, atol=0)
    assert_close(gradient_of(value, student), torch.zeros(2, 8, 5), rtol=0, atol=1e-7)


@pytest.mark.parametrize('distribution', ROW_DISTRIBUTIONS)
@pytest.mark.parametrize('edges', EDGES)
def test_a_neighbor_of_the_teacher_that_the_student_does_not_see_is_pulled_closer_unless_edges_are_its_own(
    edges, distribution
):
    """Two tokens stand together for the teacher and far apart, each among others, for the student."""
    if (edges, distribution) == ('own', 'proportional'):
        return
    student, teacher = (torch.randn(40, 6, dtype=torch.float64) * 0.1 for _ in range(2))
    student[:20, 0] += 1
    student[20:, 0] -= 1
    teacher[[0, 39]] = torch.tensor([0.0, 0, 0, 0, 0, 3.0], dtype=torch.float64) + 0.01 * teacher[[0, 39]]
    student.requires_grad_()
    options = {'edges': edges, 'row_distribution': distribution, 'num_neighbors': 1 if edges == 'own' else 2}
    term = LocalTerm(**options, normalize_tokens=False, sigma=4.0)
    gradient = gradient_of(term(student, teacher), student)
    apart = (student[0] - student[39]).detach()
    pull = float((gradient[0] - gradient[39]) @ apart)  # of d^2 / 2, downhill
    on_pair = local_gradient(term, student, teacher)[[0, 39], [39, 0]]
    if edges == 'own':
        assert_close(on_pair, [0.0, 0.0], rtol=0, atol=0)
    else:
        assert on_pair.min() > 0, 'the distance is not made smaller'
        assert pull > 0


@pytest.mark.parametrize('edges', EDGES)
@pytest.mark.parametrize('edge_direction', EDGE_DIRECTIONS)
@pytest.mark.parametrize('distribution', ROW_DISTRIBUTIONS)
def test_the_complete_graph_has_no_other_edges_and_is_that_of_all_neighbors(
    edges, edge_direction, distribution, monkeypatch
):
    student, teacher = _tokens(12, 4), _tokens(12, 5)
    options = {'edges': edges, 'edge_direction': edge_direction, 'row_distribution': distribution}
    complete = LocalTerm(None, row_distribution=distribution)(student, teacher)
    assert_close(LocalTerm(None, **options)(student, teacher), complete)
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', 500)
    assert_close(LocalTerm(None, **options)(student, teacher), complete)
    if (edges, distribution) != ('own', 'proportional'):
        assert_close(LocalTerm(50, **options)(student, teacher), complete)


def test_translating_in_float32_leaves_the_unnormalized_local_loss():
    """Offset 1000 is a multiple of the grid of the values, so the translated input is the same graph exactly."""
    student, teacher = (torch.randn(1, 40, 8) * 1024).round() / 1024, torch.randn(1, 40, 8)
    loss = EVERY['local, raw']
    assert_close(loss(student + 1000, teacher), loss(student, teacher).double(), rtol=1e-5)


def test_scaling_distances_and_sigma_together_leaves_the_unnormalized_local_loss():
    """Distances grow by 3, their squares by 9: sigma (not its square) must grow by 9."""
    student, teacher, loss = _tokens(1, 15, 5), _tokens(1, 15, 7), EVERY['local, raw']
    assert_close(loss(3 * student, 3 * teacher, sigma=36.0), loss(student, teacher, sigma=4.0))


def test_far_away_images_add_their_own_local_loss():
    """With the neighbours as support, two groups out of each other's reach do not see each other."""
    student, teacher, far_student, far_teacher = _tokens(12, 5), _tokens(12, 7), _tokens(9, 5), _tokens(9, 7)
    options = {'num_neighbors': 4, 'sigma': 4.0, 'row_distribution': 'softmax_edges', 'normalize_tokens': False}
    expected = local_preserving_loss(student, teacher, **options)
    expected = expected + local_preserving_loss(far_student, far_teacher, **options)
    both = torch.cat([student, far_student + 500]), torch.cat([teacher, far_teacher + 500])
    assert_close(local_preserving_loss(*both, **options), expected, rtol=1e-8)


@pytest.mark.parametrize('reduction', ['mean', 'batchmean'])
def test_images_do_not_see_each_other_in_the_contextual_loss(reduction):
    student, teacher = _tokens(4, 5, 3), _tokens(4, 5, 6)
    alone = [contextual_loss(student[[b]], teacher[[b]], reduction=reduction) for b in range(4)]
    assert_close(contextual_loss(student, teacher, reduction=reduction), torch.stack(alone).mean())


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


def test_a_sharper_temperature_rewards_a_matching_student():
    tokens = torch.eye(8, dtype=torch.float64)
    losses = [float(global_relationship_loss(tokens, tokens, temperature)) for temperature in (1.0, 0.5, 0.1, 0.05)]
    assert losses == sorted(losses, reverse=True)
    assert_close(losses[0], math.log1p(7 * math.exp(-1)))
