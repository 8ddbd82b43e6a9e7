"""Every loss of the table: the naive float64 reading, gradients, blocks, degenerate tokens, NaN and Inf."""

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close, assert_not_finite, gradient_of
from loss_table import EVERY, REGISTERED, WAYS

from trg_torchdistill import _blocks
from trg_torchdistill.registration import TABLE

pytestmark = pytest.mark.filterwarnings('ignore:expected `num_neighbors`', 'ignore:expected `TokenContextualLoss`')
EVERY_LOSS = pytest.mark.parametrize('name', EVERY)
EVERY_WAY = pytest.mark.parametrize('name', WAYS)
MASK = torch.tensor([[True, True, False, True, True], [False] * 5, [False, True, True, False, False]])
ONE_TOKEN = torch.zeros(3, 5, dtype=torch.bool).index_put((torch.tensor(1), torch.tensor(3)), torch.tensor(True))
PRECISIONS = pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)


def assert_follows_reference(loss, student, teacher, rtol, **options):
    """Value to rtol, gradient to 10 rtol of its largest entry, either to rtol / 100 near zero; none for the teacher."""
    student, teacher = student.detach().clone().requires_grad_(), teacher.clone().requires_grad_()
    exact = student.detach().double().requires_grad_()
    actual, expected = loss(student, teacher, **options), loss.expected(exact, teacher, **options)
    assert actual.shape == ()
    assert actual.dtype == student.dtype
    assert_close(actual, expected, rtol=rtol, atol=rtol / 100)
    actual.backward()
    assert teacher.grad is None
    wanted = gradient_of(expected, exact)
    assert_close(student.grad, wanted, rtol=10 * rtol, atol=10 * rtol * float(wanted.abs().max()) + rtol / 100)


def test_every_registered_loss_is_in_the_table():
    assert set(REGISTERED) == {entry.key for entry in TABLE if entry.kind == 'middle-level loss'} <= set(EVERY)


@PRECISIONS
@pytest.mark.parametrize('shape', [(2, 5, 5), (1, 2, 3), (3, 4, 2)], ids=str)
@EVERY_LOSS
def test_value_and_gradient_are_those_of_the_reference(name, shape, dtype, rtol):
    assert_follows_reference(EVERY[name], *EVERY[name].pair(shape, dtype, scale=1.0), rtol)


@PRECISIONS
@EVERY_LOSS
def test_with_padding_they_are_those_of_the_reference_of_the_tokens_that_count(name, dtype, rtol):
    assert_follows_reference(EVERY[name], *EVERY[name].pair((3, 5, 4), dtype, scale=1.0), rtol, mask=MASK)


@PRECISIONS
@pytest.mark.parametrize(
    ('name', 'options'),
    [
        *(
            (name, {'num_neighbors': k})
            for name in ('local', 'local, softmax_edges', 'local, union', 'TRGLoss')
            for k in (1, 9, 50)
        ),
        *(
            (name, {'temperature': t})
            for name in ('global', 'global, teacher', 'TRGLoss', 'contextual, unit')
            for t in (0.07, 1.0)
        ),
        ('local, raw', {'sigma': 0.7}),
    ],
    ids=str,
)
def test_numbers_are_those_of_the_reference(name, options, dtype, rtol):
    assert_follows_reference(EVERY[name], *EVERY[name].pair(dtype=dtype), rtol, **options)


@EVERY_LOSS
def test_gradcheck(name):
    student, teacher = EVERY[name].pair((2, 3, 3), torch.float64, scale=1.0)
    assert torch.autograd.gradcheck(lambda tokens: EVERY[name](tokens, teacher), student)


@EVERY_WAY
def test_gradcheck_with_padding(name):
    student, teacher = EVERY[name].pair((3, 5, 3), torch.float64, scale=1.0)
    assert torch.autograd.gradcheck(lambda tokens: EVERY[name](tokens, teacher, mask=MASK), student)


@EVERY_LOSS
def test_without_padding_a_mask_changes_nothing(name):
    student, teacher = EVERY[name].pair()
    plain, masked = (EVERY[name](student, teacher, mask=mask) for mask in (None, torch.ones(2, 5, dtype=torch.bool)))
    assert torch.equal(plain, masked)
    assert torch.equal(gradient_of(plain, student), gradient_of(masked, student))


@EVERY_LOSS
@pytest.mark.parametrize('padding', [[1e3] * 6, [torch.nan, torch.inf, -torch.inf, 0, 1, -1e30]], ids=['finite', 'not'])
def test_the_values_of_padding_have_no_influence(name, padding):
    student, teacher = EVERY[name].pair((3, 5, 6))
    other_student, other_teacher = (
        torch.where(MASK[:, :, None], tokens, torch.tensor(padding * 2)[: tokens.shape[2]]).detach().requires_grad_()
        for tokens in (student, teacher)
    )
    value, other = EVERY[name](student, teacher, mask=MASK), EVERY[name](other_student, other_teacher, mask=MASK)
    assert torch.equal(value, other)
    gradient = gradient_of(value, student)
    assert torch.equal(gradient, gradient_of(other, other_student))
    assert not gradient[~MASK].any()


@EVERY_LOSS
def test_a_batch_of_padding_has_a_zero_loss_and_a_zero_gradient(name):
    student, teacher = (torch.full_like(tokens, torch.nan) for tokens in EVERY[name].pair((3, 5, 6)))
    value = EVERY[name](student.requires_grad_(), teacher, mask=torch.zeros(3, 5, dtype=torch.bool))
    assert value == 0
    assert torch.equal(gradient_of(value, student), torch.zeros_like(student))


@EVERY_WAY
def test_blocks_change_memory_and_nothing_else(name, monkeypatch):
    loss = EVERY[name]
    student, teacher = loss.pair((7, 9, 6), torch.float64)
    whole = loss(student, teacher)
    gradient = gradient_of(whole, student)
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', 5 * 8 * 6 * 8)  # five rows of differences, less than an image
    blocks = loss(student, teacher)
    assert_close(blocks, whole, rtol=1e-12)
    assert_close(gradient_of(blocks, student), gradient, rtol=1e-10)
    with torch.no_grad():
        assert_close(loss(student, teacher), whole, rtol=1e-12)
    assert_follows_reference(loss, *loss.pair((3, 5, 4), torch.float64), 1e-9, mask=MASK)
    student, teacher = loss.pair((3, 4, 3), torch.float64)
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', 300)
    assert torch.autograd.gradcheck(lambda tokens: loss(tokens, teacher), student)


@EVERY_WAY
def test_non_contiguous_tokens_give_the_same_loss(name):
    loss = EVERY[name]
    student, teacher = (tokens.detach() for tokens in loss.pair(dtype=torch.float64))
    strided = [tokens.movedim(-1, 0).contiguous().movedim(0, -1) for tokens in (student, teacher)]
    expanded = torch.stack([student] * 2, dim=-1)[..., 1]
    assert not strided[0].is_contiguous()
    assert_close(loss(*strided), loss(student, teacher))
    assert_close(loss(expanded, teacher), loss(student, teacher))


@EVERY_WAY
def test_a_student_without_gradient_has_a_loss_and_a_teacher_in_a_graph_gets_no_gradient(name):
    student, teacher = EVERY[name].pair()
    with torch.no_grad():
        assert_close(EVERY[name](student, teacher), EVERY[name].expected(student, teacher), rtol=1e-5)
    weight = torch.ones(teacher.shape[2], requires_grad=True)
    EVERY[name](student, teacher * weight).backward()
    assert weight.grad is None


@EVERY_WAY
@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_a_bad_value_coming_in_is_visible_in_the_loss(name, side, bad):
    student, teacher = (tokens.detach() for tokens in EVERY[name].pair())
    {'student': student, 'teacher': teacher}[side][1, 3, 2] = bad
    assert_not_finite(EVERY[name](student, teacher))
    assert_not_finite(EVERY[name](student[1:, 3:4], teacher[1:, 3:4]))


def constant(shape):
    return torch.full(shape, 0.3)


def opposite(shape):
    return torch.randn(shape[-1]) * torch.where(torch.arange(shape[1]) % 2 > 0, -1, 1)[:, None].expand(shape)


SHAPE = (2, 5, 6)
DEGENERATE = {
    'constant': (constant, SHAPE),
    'zero': (torch.zeros, SHAPE),
    'one zero vector': (lambda shape: torch.randn(shape) * (torch.arange(shape[1]) != 1)[:, None], SHAPE),
    'tiny': (lambda shape: torch.randn(shape) * 1e-30, SHAPE),
    'large': (lambda shape: torch.randn(shape) * 1e4, SHAPE),
    'very large': (lambda shape: torch.randn(shape) * 1e18, SHAPE),
    'far from the origin': (lambda shape: torch.randn(shape) + 1e3, SHAPE),
    'duplicates': (lambda shape: torch.randn(shape).repeat_interleave(2, dim=1)[:, : shape[1]], SHAPE),
    'equal images': (lambda shape: torch.randn(shape[1:]).expand(shape), SHAPE),
    'opposite': (opposite, SHAPE),
    'one token': (torch.randn, (1, 1, 6)),
    'two equal tokens': (constant, (1, 2, 6)),
    'one token an image': (torch.randn, (4, 1, 6)),
    'one image': (torch.randn, (1, 10, 6)),
    'one channel': (torch.randn, (1, 4, 1)),
}


@EVERY_WAY
@pytest.mark.parametrize('kind', DEGENERATE)
def test_degenerate_tokens_give_a_finite_attached_loss_and_finite_gradients(name, kind):
    make, shape = DEGENERATE[kind]
    for student, teacher in ((make, make), (make, torch.randn), (torch.randn, make)):
        tokens = student(shape).clone().requires_grad_()
        value = EVERY[name](tokens, teacher(shape))
        assert value.requires_grad, 'the loss is detached from the student'
        assert_all_finite(value, gradient_of(value, tokens))


@EVERY_WAY
@pytest.mark.parametrize('kind', ['constant', 'zero', 'one zero vector', 'tiny', 'duplicates', 'opposite'])
def test_degenerate_student_equals_the_reference_where_ties_do_not_matter(name, kind):
    """k = M - 1 leaves no choice among equally distant neighbours. A row's KL is small beside its log Z, hence 1e-4."""
    loss, shape = EVERY[name], (1, 4, 6)
    student = DEGENERATE[kind][0](shape).clone().requires_grad_()
    exact, teacher = student.detach().double().requires_grad_(), 0.5 * torch.randn(shape)
    actual, expected = loss(student, teacher), loss.expected(exact, teacher, eps=reference.EPS_FLOAT32)
    assert_close(actual, expected, rtol=1e-4, atol=1e-12)
    wanted = gradient_of(expected, exact)
    assert_close(gradient_of(actual, student), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()) + 2e-7)


@pytest.mark.parametrize('name', [name for name in WAYS if 'queue' not in name])
def test_a_single_token_has_a_zero_loss_and_a_zero_gradient(name):
    student, teacher = EVERY[name].pair((1, 1, 6))
    value = EVERY[name](student, teacher)
    assert_close(value, 0.0, atol=1e-6)
    assert_close(gradient_of(value, student), torch.zeros(1, 1, 6), atol=1e-5)
    student, teacher = EVERY[name].pair((3, 5, 6))
    value = EVERY[name](student, teacher, mask=ONE_TOKEN)
    assert_close(value, 0.0, atol=1e-6)
    assert_close(gradient_of(value, student), torch.zeros(3, 5, 6), atol=1e-5)
