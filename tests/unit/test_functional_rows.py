"""A process answers for some rows of the graph: the parts add up to the whole, in value and gradient."""

import pytest
import torch
from helpers import assert_close

from trg_torchdistill import _blocks
from trg_torchdistill.functional import GlobalTerm, LocalTerm, global_relationship_loss, local_preserving_loss
from trg_torchdistill.graph import edge_square_distances, nearest_neighbors

NUM_TOKENS = 23
PARTS = [range(7), range(7, 8), range(8, NUM_TOKENS)]
LOCAL_CHOICES = [
    {},
    {'kl_direction': 'student_teacher', 'normalize_tokens': False},
    {'row_distribution': 'softmax_edges', 'reduction': 'mean'},
]


def _tokens():
    student = torch.randn(NUM_TOKENS, 5, dtype=torch.float64, requires_grad=True)
    return student, torch.randn(NUM_TOKENS, 5, dtype=torch.float64)


def _assert_parts_make_the_whole(whole, parts, student):
    assert_close(torch.stack(parts).sum(), whole.detach())
    gradients = [torch.autograd.grad(part, student, retain_graph=True)[0] for part in parts]
    assert_close(torch.stack(gradients).sum(0), torch.autograd.grad(whole, student)[0])


@pytest.mark.parametrize('choice', LOCAL_CHOICES, ids=str)
def test_parts_of_the_local_loss_make_the_whole(choice):
    student, teacher = _tokens()
    whole = local_preserving_loss(student, teacher, 4, **choice)
    weights = [len(rows) / NUM_TOKENS if 'reduction' in choice else 1 for rows in PARTS]
    parts = [LocalTerm(4, **choice)(student, teacher, rows) for rows in PARTS]
    _assert_parts_make_the_whole(whole, [w * part for w, part in zip(weights, parts, strict=True)], student)


def test_parts_of_the_global_loss_make_the_whole():
    student, teacher = _tokens()
    whole = global_relationship_loss(student, teacher, reduction='sum')
    parts = [GlobalTerm('sum')(student[rows.start : rows.stop], teacher, rows=rows) for rows in PARTS]
    _assert_parts_make_the_whole(whole, parts, student)


@pytest.mark.parametrize('block_bytes', [1, 1000, 2**23])
def test_parts_of_the_neighbors_make_the_whole(block_bytes, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    tokens, _ = _tokens()
    parts = [nearest_neighbors(tokens, 3, rows=rows) for rows in PARTS]
    assert torch.equal(torch.cat(parts).sort(1).values, nearest_neighbors(tokens, 3).sort(1).values)


def test_parts_of_the_edges_make_the_whole():
    tokens, _ = _tokens()
    neighbors = nearest_neighbors(tokens, 3)
    whole = edge_square_distances(tokens, neighbors)
    parts = [edge_square_distances(tokens, neighbors[rows.start : rows.stop], rows=rows) for rows in PARTS]
    assert torch.equal(torch.cat(parts), whole)
    weights = torch.randn_like(whole)
    weighted = [(part * weights[rows.start : rows.stop]).sum() for part, rows in zip(parts, PARTS, strict=True)]
    _assert_parts_make_the_whole((whole * weights).sum(), weighted, tokens)


@pytest.mark.parametrize('rows', [range(-1, 4), range(NUM_TOKENS + 1), range(0, 4, 2), (0, 4)])
def test_rows_that_are_none_of_the_graph_are_an_error(rows):
    student, teacher = _tokens()
    for term in (LocalTerm(), GlobalTerm()):
        with pytest.raises((ValueError, TypeError), match='expected `rows` to be a range'):
            term(student, teacher, rows=rows)


@pytest.mark.parametrize('rows', [range(0), range(3, 3), range(NUM_TOKENS, NUM_TOKENS)])
def test_of_no_rows_the_loss_is_a_zero_that_backpropagates(rows):
    student, teacher = (tokens.requires_grad_() for tokens in _tokens())
    for value in (LocalTerm()(student, teacher, rows), GlobalTerm()(student[:0], teacher, rows=rows)):
        assert value == 0
        assert torch.equal(torch.autograd.grad(value, student)[0], torch.zeros_like(student))


def test_the_global_loss_wants_the_student_tokens_of_its_rows():
    student, teacher = _tokens()
    with pytest.raises(ValueError, match='the same number of tokens, got 23 and 7'):
        GlobalTerm()(student, teacher, rows=range(7))
