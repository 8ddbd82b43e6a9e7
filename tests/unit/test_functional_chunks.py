"""Working in blocks under a byte budget changes memory, not the value or the gradient."""

import pytest
import torch

from tests.helpers import assert_close
from trg_torchdistill import _blocks, functional, graph

TERMS = {
    'local': (functional.local_preserving_loss, (40, 6)),
    'global': (functional.global_relationship_loss, (40, 6)),
    'contextual': (functional.contextual_loss, (7, 9, 6)),
}
BLOCK_BYTES = 5 * 8 * 6 * 8  # five rows of differences, six of logits, two of images


@pytest.mark.parametrize('name', TERMS)
def test_blocks_change_nothing(name, monkeypatch):
    loss, shape = TERMS[name]
    student = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(shape, dtype=torch.float64)
    whole = loss(student, teacher)
    (gradient,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', BLOCK_BYTES)
    blocks = loss(student, teacher)
    assert_close(blocks, whole, rtol=1e-12)
    assert_close(torch.autograd.grad(blocks, student)[0], gradient, rtol=1e-10)
    with torch.no_grad():
        assert_close(loss(student, teacher), whole, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda tokens: loss(tokens, teacher), student)


def test_a_large_context_is_computed_in_blocks_of_images(monkeypatch):
    images_seen = []
    similarity = graph.context_similarity
    monkeypatch.setattr(
        functional, 'context_similarity', lambda *args: images_seen.append(len(args[0])) or similarity(*args)
    )
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', 3 * 4 * 4 * 4)
    functional.contextual_loss(torch.randn(7, 4, 2), torch.randn(7, 4, 2))
    assert images_seen == [3, 3, 3, 3, 1, 1]
