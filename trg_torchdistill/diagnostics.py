"""What the edges of a graph look like, and how much of a term's gradient lands on those of the teacher.

For looking at a batch, not for training: everything here holds M x M numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trg_torchdistill.context import ContextualTerm
from trg_torchdistill.functional import GlobalTerm, LocalTerm
from trg_torchdistill.graph import nearest_neighbors, square_distances
from trg_torchdistill.tokens import in_full_precision, normalize

DEFAULT_NEIGHBORS = 8


def edge_squares(term: LocalTerm, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Returns by side the squared distances of the pairs that are edges of its graph, in one row.

    Args:
        term: The local term.
        student: Student tokens [M, D_S].
        teacher: Teacher tokens [M, D_T].
    """
    tokens = dict(zip(('student', 'teacher'), map(term.placed, in_full_precision(student, teacher)), strict=True))
    pairs = term.pairs(tokens['student'], tokens['teacher'])
    distances = {side: square_distances(each, each).gather(1, pairs.columns) for side, each in tokens.items()}
    return {side: squares[pairs.of(side)] for side, squares in distances.items()}


def teacher_rows(term: LocalTerm, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the teacher's rows [M, K] as a ``proportional`` term has them, 0 where there is no edge."""
    student, teacher = map(term.placed, in_full_precision(student, teacher))
    pairs = term.pairs(student, teacher)
    squares = square_distances(teacher, teacher).gather(1, pairs.columns)
    logits = squares / (-2 * term.sigma)
    return (logits if pairs.is_edge is None else logits.masked_fill(~pairs.is_edge, -torch.inf)).softmax(1)


def local_gradient(term: LocalTerm, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the gradient [M, M] of the local term to the student's squared distances, 0 where there is no edge."""
    student, teacher = map(term.placed, in_full_precision(student.detach(), teacher))
    squares = square_distances(student, student).requires_grad_()
    if len(student) == 1:
        return torch.zeros_like(squares)
    pairs = term.pairs(student, teacher)
    with torch.enable_grad():
        own, others = (each.gather(1, pairs.columns) for each in (squares, square_distances(teacher, teacher)))
        loss = term.divergence(own, others, pairs, len(student))
    return torch.autograd.grad(loss, squares)[0]


def global_gradient(
    term: GlobalTerm,
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    target_temperature: float | None = None,
) -> Tensor:
    """Returns the gradient [M, M] of the global term, without a queue, to its logits, p - 1 or p - q."""
    student, teacher = map(normalize, in_full_precision(student.detach(), teacher))
    found = (student @ teacher.T / temperature).softmax(1)
    if term.targets == 'self':
        return found - torch.eye(len(teacher)).to(found)
    return found - soft_targets(teacher, target_temperature or temperature)


def contextual_difference(term: ContextualTerm, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the gradient [B, N, N] of the contextual term to the student's context maps, but for a factor."""
    student, teacher = in_full_precision(student.detach(), teacher)
    return term.context(student) - term.context(teacher)


def soft_targets(teacher: Tensor, temperature: float) -> Tensor:
    """Returns the soft targets q [M, M] of the global term."""
    teacher = normalize(teacher.float())
    return (teacher @ teacher.T / temperature).softmax(1)


def share_on_teacher_edges(gradient: Tensor, teacher: Tensor, num_neighbors: int | None = None) -> float:
    """Returns how much of a gradient to the relations of two tokens is on those of a token to the teacher's neighbours.

    Of all relations but those of a token to itself; nan where there is no gradient. Spread evenly, it would be
    k / (M - 1).

    Args:
        gradient: Gradient [M, M].
        teacher: Teacher tokens [M, D].
        num_neighbors: Neighbours k of a token, None for 8.
    """
    size = gradient.abs().fill_diagonal_(0)
    on_edges = size.gather(1, nearest_neighbors(teacher.to(size.dtype), num_neighbors or DEFAULT_NEIGHBORS))
    return (on_edges.sum() / size.sum()).item()
