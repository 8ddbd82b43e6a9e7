"""Second derivatives: those of the naive reading and of finite differences, in blocks too, or no number at all."""

import pytest
import torch
from helpers import assert_all_finite, assert_close
from loss_table import EVERY

from trg_torchdistill import _blocks

EVERY_LOSS = pytest.mark.parametrize('name', EVERY)
IN_BLOCKS = pytest.mark.parametrize('block_bytes', [2**23, 300], ids=['whole', 'blocks'])


def _case(name):
    """A loss of the student's tokens alone, ours and the reference's, and a point and a direction."""
    student, teacher = EVERY[name].pair((2, 5, 4), torch.float64, scale=1.0)
    return (
        lambda tokens: EVERY[name](tokens, teacher),
        lambda tokens: EVERY[name].expected(tokens, teacher),
        student,
        torch.randn_like(student),
    )


def _curvature(loss, tokens, direction):
    """The product of the Hessian with a direction."""
    (gradient,) = torch.autograd.grad(loss(tokens), tokens, create_graph=True)
    return torch.autograd.grad((gradient * direction).sum(), tokens)[0]


def _difference(loss, tokens, direction, step=1e-5):
    ahead, behind = (torch.func.grad(loss)(tokens.detach() + sign * step * direction) / (2 * step) for sign in (1, -1))
    return ahead - behind


@IN_BLOCKS
@EVERY_LOSS
def test_curvature_is_that_of_the_reference_and_of_finite_differences(name, block_bytes, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, naive, tokens, direction = _case(name)
    found = _curvature(ours, tokens, direction)
    largest = float(found.abs().max())
    assert largest > 1e-4
    assert_close(found, _curvature(naive, tokens, direction), rtol=1e-9, atol=1e-9 * largest)
    assert_close(found, _difference(ours, tokens, direction), rtol=1e-5, atol=1e-6 * largest)


@IN_BLOCKS
@EVERY_LOSS
def test_gradgradcheck(name, block_bytes, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, _, tokens, _ = _case(name)
    assert torch.autograd.gradgradcheck(ours, tokens)


@IN_BLOCKS
@EVERY_LOSS
def test_a_gradient_penalty_inside_the_transforms_of_torch(name, block_bytes, monkeypatch):
    """`torch.func.grad` once and twice; the gradients are those of `torch.autograd`."""
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    ours, _, tokens, direction = _case(name)
    gradient = torch.func.grad(ours)
    assert_close(gradient(tokens.detach()), torch.autograd.grad(ours(tokens), tokens)[0])
    second = torch.func.grad(lambda values: (gradient(values) * direction).sum())
    assert_close(second(tokens.detach()), _curvature(ours, tokens, direction))


@EVERY_LOSS
def test_tokens_without_direction_and_duplicates_have_finite_curvature(name):
    ours, _, tokens, direction = _case(name)
    with torch.no_grad():
        tokens[..., 0, :] = 0
        tokens[..., 2, :] = tokens[..., 1, :]
    assert_all_finite(_curvature(ours, tokens, direction))
