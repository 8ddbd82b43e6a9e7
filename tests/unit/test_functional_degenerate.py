"""Half precision, autocast, degenerate tokens, NaN and Inf, and arguments that make no sense."""

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close, assert_not_finite, gradient_of

from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss

HALVES = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
LOCAL_VARIANTS = {
    f'local {direction} {support} {"unit" if unit else "raw"}': (
        local_preserving_loss,
        reference.local_preserving_loss,
        {'kl_direction': direction, 'affinity_support': support, 'normalize_tokens': unit, 'num_neighbors': 3},
    )
    for direction in ('teacher_student', 'student_teacher')
    for support in ('all', 'neighbors')
    for unit in (True, False)
}
GRAPH_VARIANTS = LOCAL_VARIANTS | {
    'global': (global_relationship_loss, reference.global_relationship_loss, {}),
    'global sum': (global_relationship_loss, reference.global_relationship_loss, {'reduction': 'sum'}),
}
CONTEXT_VARIANTS = {
    'contextual': (contextual_loss, reference.contextual_loss, {}),
    'contextual unit': (contextual_loss, reference.contextual_loss, {'normalize_tokens': True}),
}
VARIANTS = GRAPH_VARIANTS | CONTEXT_VARIANTS
ALL_LOSSES = pytest.mark.parametrize('name', VARIANTS)
GRAPH_LOSSES = pytest.mark.parametrize('name', GRAPH_VARIANTS)


def _pair(name, dtype=torch.float32, scale=0.5, shape=(10, 6)):
    """Student and teacher tokens of the right rank: [M, D] for the graph losses, [B, N, D] for the contextual one."""
    student, teacher = (scale * torch.randn(2, *shape)).to(dtype)
    if name in CONTEXT_VARIANTS:
        student, teacher = student.view(2, -1, shape[-1]), teacher.view(2, -1, shape[-1])
    return student.requires_grad_(), teacher


def _assert_follows_reference(name, student, teacher, rtol, gradient_rtol, eps=reference.EPS_FLOAT32):
    loss, expected_loss, options = VARIANTS[name]
    exact = student.detach().double().requires_grad_()
    actual, expected = loss(student, teacher, **options), expected_loss(exact, teacher, eps=eps, **options)
    assert_close(actual, expected, rtol=rtol)
    gradient, wanted = gradient_of(actual, student), gradient_of(expected, exact)
    assert gradient.dtype == student.dtype
    assert_close(gradient, wanted, rtol=gradient_rtol, atol=gradient_rtol * float(wanted.abs().max()) + 1e-7)
    return actual


@HALVES
@ALL_LOSSES
def test_half_precision_inputs_lose_nothing_beyond_their_own_rounding(name, dtype):
    student, teacher = _pair(name, dtype)
    loss = _assert_follows_reference(name, student, teacher, 1e-5, 2 * torch.finfo(dtype).eps)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize('scale', [300.0, 2e-4, 1e-6])
@pytest.mark.parametrize('name', ['local teacher_student all unit', 'global', 'contextual', 'contextual unit'])
def test_half_precision_squares_neither_overflow_nor_underflow(name, scale):
    """300 squared and 1e-6 squared leave the range of fp16; 2e-4 is shorter than the eps of fp16, not of float32."""
    student, teacher = _pair(name, torch.float16, scale)
    loss, expected_loss, options = VARIANTS[name]
    expected = expected_loss(student, teacher, eps=reference.EPS_FLOAT32, **options)
    assert_close(loss(student, teacher, **options), expected, rtol=2e-5)


@ALL_LOSSES
@pytest.mark.parametrize('teacher_dtype', [torch.float32, torch.bfloat16])
def test_student_and_teacher_may_differ_in_precision(name, teacher_dtype):
    student, teacher = _pair(name)
    student = student.detach().to(torch.bfloat16 if teacher_dtype == torch.float32 else torch.float32)
    teacher = teacher.to(teacher_dtype)
    loss = _assert_follows_reference(name, student.requires_grad_(), teacher, 1e-5, 2e-2)
    assert loss.dtype == torch.float32


@ALL_LOSSES
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_changes_nothing(name, dtype):
    student, teacher = _pair(name, dtype)
    loss, _, options = VARIANTS[name]
    expected = loss(student, teacher, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = loss(student, teacher, **options)
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, rtol=1e-6)
    wanted = gradient_of(expected, student)
    assert_close(gradient_of(actual, student), wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize('support', ['all', 'neighbors'])
def test_autocast_does_not_blur_the_neighbors_of_raw_tokens(support):
    student, teacher = torch.randn(64, 16) + 30, torch.randn(64, 16) - 30
    options = {'normalize_tokens': False, 'sigma': 10.0, 'num_neighbors': 5, 'affinity_support': support}
    expected = reference.local_preserving_loss(student, teacher, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_close(local_preserving_loss(student, teacher, **options), expected, rtol=1e-4)


@ALL_LOSSES
def test_non_contiguous_tokens_give_the_same_loss(name):
    student, teacher = _pair(name, torch.float64)
    loss, _, options = VARIANTS[name]
    strided = [x.detach().movedim(-1, 0).contiguous().movedim(0, -1) for x in (student, teacher)]
    expanded = torch.stack([student.detach()] * 2, dim=-1)[..., 1]
    assert not strided[0].is_contiguous()
    assert_close(loss(*strided, **options), loss(student, teacher, **options))
    assert_close(loss(expanded, teacher, **options), loss(student, teacher, **options))


@ALL_LOSSES
@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_a_bad_value_coming_in_is_visible_in_the_loss(name, side, bad):
    student, teacher = (x.detach() for x in _pair(name))
    {'student': student, 'teacher': teacher}[side][..., 3, 2] = bad
    loss, _, options = VARIANTS[name]
    assert_not_finite(loss(student, teacher, **options))


def _duplicated(shape):
    return torch.randn(shape).repeat_interleave(2, dim=-2)[..., : shape[-2], :]


DEGENERATE = {
    'constant': lambda shape: torch.full(shape, 0.3),
    'zero': torch.zeros,
    'one zero vector': lambda shape: torch.randn(shape) * (torch.arange(shape[-2]) != 1)[:, None],
    'tiny': lambda shape: torch.randn(shape) * 1e-20,
    'large': lambda shape: torch.randn(shape) * 1e4,
    'far from the origin': lambda shape: torch.randn(shape) + 1e3,
    'duplicates': _duplicated,
    'opposite': lambda shape: torch.randn(shape[-1]) * torch.where(torch.arange(shape[-2]) % 2 > 0, -1, 1)[:, None],
    'random': torch.randn,
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('shape', [(1, 6), (2, 6), (10, 6), (4, 1)], ids=str)
@pytest.mark.parametrize('kind', DEGENERATE)
@ALL_LOSSES
def test_degenerate_tokens_give_a_finite_attached_loss_and_finite_gradients(name, kind, shape):
    loss, _, options = VARIANTS[name]
    shape = (1, *shape) if name in CONTEXT_VARIANTS else shape
    for other in (kind, 'random'):
        for student, teacher in ((kind, other), (other, kind)):
            tokens = DEGENERATE[student](shape).expand(shape).clone().requires_grad_()
            value = loss(tokens, DEGENERATE[teacher](shape).expand(shape), **options)
            assert value.requires_grad, 'the loss is detached from the student'
            assert_all_finite(value, gradient_of(value, tokens))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['constant', 'zero', 'one zero vector', 'tiny', 'duplicates', 'opposite'])
@ALL_LOSSES
def test_degenerate_student_equals_the_reference_where_ties_do_not_matter(name, kind):
    """k = M - 1 leaves no choice among equally distant neighbours. A row's KL is small beside its log Z, hence 1e-4."""
    shape = (1, 4, 6) if name in CONTEXT_VARIANTS else (4, 6)
    student = DEGENERATE[kind](shape).expand(shape).clone().requires_grad_()
    _assert_follows_reference(name, student, 0.5 * torch.randn(shape), 1e-4, 1e-4)


@pytest.mark.filterwarnings('ignore')
@ALL_LOSSES
def test_a_single_token_has_a_zero_loss_and_a_zero_gradient(name):
    shape = (1, 1, 6) if name in CONTEXT_VARIANTS else (1, 6)
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    loss, _, options = VARIANTS[name]
    value = loss(student, teacher, **options)
    assert_close(value, 0.0, atol=1e-6)
    assert_close(gradient_of(value, student), torch.zeros(shape), atol=1e-5)


@ALL_LOSSES
def test_a_student_without_gradient_has_a_loss_too(name):
    student, teacher = _pair(name)
    loss, expected_loss, options = VARIANTS[name]
    with torch.no_grad():
        assert_close(loss(student, teacher, **options), expected_loss(student, teacher, **options), rtol=1e-5)


@ALL_LOSSES
def test_a_teacher_that_is_part_of_a_graph_gets_no_gradient(name):
    student, teacher = _pair(name)
    weight = torch.ones(6, requires_grad=True)
    loss, _, options = VARIANTS[name]
    loss(student, teacher * weight, **options).backward()
    assert weight.grad is None


LOCAL, GLOBAL, CONTEXT = local_preserving_loss, global_relationship_loss, contextual_loss
FLAT, IMAGES = torch.ones(6, 4), torch.ones(2, 3, 4)
BAD_ARGUMENTS = {
    'local of images': (LOCAL, (IMAGES, IMAGES), {}, ValueError, 'student'),
    'local teacher of images': (LOCAL, (FLAT, IMAGES), {}, ValueError, 'teacher'),
    'local of unequal counts': (LOCAL, (FLAT, FLAT[:5]), {}, ValueError, '(student|teacher)'),
    'local of a list': (LOCAL, ([[1.0]], FLAT), {}, TypeError, 'student'),
    'local of no teacher': (LOCAL, (FLAT, None), {}, TypeError, 'teacher'),
    'local of integers': (LOCAL, (FLAT.long(), FLAT), {}, TypeError, 'student'),
    'local no neighbors': (LOCAL, (FLAT, FLAT), {'num_neighbors': 0}, ValueError, 'num_neighbors'),
    'local half neighbor': (LOCAL, (FLAT, FLAT), {'num_neighbors': 1.5}, TypeError, 'num_neighbors'),
    'local zero sigma': (LOCAL, (FLAT, FLAT), {'sigma': 0.0}, ValueError, 'sigma'),
    'local negative sigma': (LOCAL, (FLAT, FLAT), {'sigma': -1}, ValueError, 'sigma'),
    'local nan sigma': (LOCAL, (FLAT, FLAT), {'sigma': float('nan')}, ValueError, 'sigma'),
    'local text sigma': (LOCAL, (FLAT, FLAT), {'sigma': '0.5'}, TypeError, 'sigma'),
    'local direction': (LOCAL, (FLAT, FLAT), {'kl_direction': 'both'}, ValueError, 'kl_direction'),
    'local support': (LOCAL, (FLAT, FLAT), {'affinity_support': 'union'}, ValueError, 'affinity_support'),
    'local reduction': (LOCAL, (FLAT, FLAT), {'reduction': 'batchmean'}, ValueError, 'reduction'),
    'local text flag': (LOCAL, (FLAT, FLAT), {'normalize_tokens': 'no'}, TypeError, 'normalize_tokens'),
    'global of images': (GLOBAL, (IMAGES, IMAGES), {}, ValueError, 'student'),
    'global of unequal widths': (GLOBAL, (FLAT, FLAT[:, :3]), {}, ValueError, '(student|teacher)'),
    'global of unequal counts': (GLOBAL, (FLAT, FLAT[:5]), {}, ValueError, '(student|teacher)'),
    'global zero temperature': (GLOBAL, (FLAT, FLAT, 0.0), {}, ValueError, 'temperature'),
    'global text temperature': (GLOBAL, (FLAT, FLAT, '0.1'), {}, TypeError, 'temperature'),
    'global reduction': (GLOBAL, (FLAT, FLAT), {'reduction': 'none'}, ValueError, 'reduction'),
    'global of a tuple': (GLOBAL, ((FLAT,), FLAT), {}, TypeError, 'student'),
    'context of a graph': (CONTEXT, (FLAT, FLAT), {}, ValueError, 'student'),
    'context of unequal batches': (CONTEXT, (IMAGES, IMAGES[:1]), {}, ValueError, '(student|teacher)'),
    'context of unequal counts': (CONTEXT, (IMAGES, IMAGES[:, :2]), {}, ValueError, '(student|teacher)'),
    'context zero temperature': (CONTEXT, (IMAGES, IMAGES), {'temperature': 0.0}, ValueError, 'temperature'),
    'context reduction': (CONTEXT, (IMAGES, IMAGES), {'reduction': 'sum'}, ValueError, 'reduction'),
    'context text flag': (CONTEXT, (IMAGES, IMAGES), {'normalize_tokens': 1}, TypeError, 'normalize_tokens'),
}


@pytest.mark.parametrize(('loss', 'tokens', 'options', 'error', 'field'), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_a_bad_argument_is_named_with_what_was_expected_and_found(loss, tokens, options, error, field):
    with pytest.raises(error, match=rf'expected `\w*{field}\w*`.*, got '):
        loss(*tokens, **options)
