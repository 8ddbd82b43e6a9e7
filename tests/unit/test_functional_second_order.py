"""Second derivatives: those of the naive reading and of finite differences, in blocks too, or no number at all."""

import functools
import itertools

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close

from trg_torchdistill import TokenContextualLoss, TRGLoss, _blocks
from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss

LOCAL_CHOICES = itertools.product(
    ('teacher_student', 'student_teacher'), ('all', 'neighbors'), (True, False), ('sum', 'mean')
)
LOSSES = {
    ' '.join(map(str, ('local', *choice))): (
        'local_preserving_loss',
        (10, 4),
        dict(zip(('kl_direction', 'affinity_support', 'normalize_tokens', 'reduction'), choice, strict=True)),
    )
    for choice in LOCAL_CHOICES
} | {
    'global mean': ('global_relationship_loss', (10, 4), {}),
    'global sum': ('global_relationship_loss', (10, 4), {'temperature': 0.5, 'reduction': 'sum'}),
    'contextual': ('contextual_loss', (3, 4, 4), {}),
    'contextual unit': ('contextual_loss', (3, 4, 4), {'normalize_tokens': True, 'reduction': 'batchmean'}),
}
OURS = {loss.__name__: loss for loss in (local_preserving_loss, global_relationship_loss, contextual_loss)}
IN_BLOCKS = pytest.mark.parametrize('block_bytes', [2**23, 300], ids=['whole', 'blocks'])
PATHS = {
    'student_module_path': 'map',
    'student_module_io': 'output',
    'teacher_module_path': 'map',
    'teacher_module_io': 'output',
}


def _case(name):
    """A loss of the student's tokens alone, ours and the reference's, and a point and a direction."""
    loss, shape, options = LOSSES[name]
    student, teacher, direction = torch.randn(3, *shape, dtype=torch.float64)
    if loss == 'local_preserving_loss':
        options = options | {'num_neighbors': 3, 'sigma': 0.5 if options['normalize_tokens'] else 3.0}
    ours, naive = (
        functools.partial(each, teacher=teacher, **options) for each in (OURS[loss], getattr(reference, loss))
    )
    return ours, naive, student.requires_grad_(), direction


def _curvature(loss, tokens, direction):
    """The product of the Hessian with a direction."""
    (gradient,) = torch.autograd.grad(loss(tokens), tokens, create_graph=True)
    return torch.autograd.grad((gradient * direction).sum(), tokens)[0]


def _difference(loss, tokens, direction, step=1e-5):
    ahead, behind = (torch.func.grad(loss)(tokens.detach() + sign * step * direction) / (2 * step) for sign in (1, -1))
    return ahead - behind


@IN_BLOCKS
@pytest.mark.parametrize('name', LOSSES)
def test_curvature_is_that_of_the_reference_and_of_finite_differences(name, block_bytes, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, naive, tokens, direction = _case(name)
    found = _curvature(ours, tokens, direction)
    largest = float(found.abs().max())
    assert largest > 1e-4
    assert_close(found, _curvature(naive, tokens, direction), rtol=1e-9, atol=1e-9 * largest)
    assert_close(found, _difference(ours, tokens, direction), rtol=1e-5, atol=1e-6 * largest)


@IN_BLOCKS
@pytest.mark.parametrize('name', LOSSES)
def test_gradgradcheck(name, block_bytes, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, _, tokens, _ = _case(name)
    assert torch.autograd.gradgradcheck(ours, tokens)


@IN_BLOCKS
@pytest.mark.parametrize('name', LOSSES)
def test_a_gradient_penalty_inside_the_transforms_of_torch(name, block_bytes, monkeypatch):
    """`torch.func.grad` once and twice; the gradients are those of `torch.autograd`."""
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, _, tokens, direction = _case(name)
    gradient = torch.func.grad(ours)
    assert_close(gradient(tokens.detach()), torch.autograd.grad(ours(tokens), tokens)[0])
    second = torch.func.grad(lambda values: (gradient(values) * direction).sum())
    assert_close(second(tokens.detach()), _curvature(ours, tokens, direction))


@pytest.mark.parametrize('name', LOSSES)
def test_tokens_without_direction_and_duplicates_have_finite_curvature(name):
    ours, _, tokens, direction = _case(name)
    with torch.no_grad():
        tokens[..., 0, :] = 0
        tokens[..., 2, :] = tokens[..., 1, :]
    assert_all_finite(_curvature(ours, tokens, direction))


@pytest.mark.parametrize('cls', [TRGLoss, TokenContextualLoss])
def test_gradgradcheck_of_the_registered_losses(cls):
    loss = cls(**PATHS, **({'tokens_per_image': None, 'num_neighbors': 3} if cls is TRGLoss else {}))
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda feature: loss({'map': {'output': feature}}, {'map': {'output': teacher}}), student.requires_grad_()
    )
