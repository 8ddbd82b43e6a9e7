"""What the edges of a graph look like, and how much of a term's gradient lands on those of the teacher.

For looking at a batch, not for training: everything here holds M x M numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trg_torchdistill.context import ContextualTerm
from trg_torchdistill.functional import GlobalTerm, LocalTerm
from trg_torchdistill.graph import Pairs, nearest_neighbors, square_distances
from trg_torchdistill.tokens import in_full_precision, normalize

DEFAULT_NEIGHBORS = 8


def graph_of(term: LocalTerm, student: Tensor, teacher: Tensor) -> tuple[Pairs, dict[str, Tensor]]:
    """Returns the pairs of a local term, and by side the squared distances [M, M] of all tokens.

    Args:
        term: The local term.
        student: Student tokens [M, D_S].
        teacher: Teacher tokens [M, D_T].
    """
    student, teacher = map(term.placed, in_full_precision(student.detach(), teacher))
    squares = {'student': square_distances(student, student), 'teacher': square_distances(teacher, teacher)}
    return term.pairs(student, teacher), squares


def teacher_rows(term: LocalTerm, pairs: Pairs, squares: Tensor) -> Tensor:
    """Returns the teacher's rows [M, K] as a ``proportional`` term has them, 0 where there is no edge.

    Args:
        term: The local term.
        pairs: Its pairs.
        squares: The teacher's squared distances [M, M].
    """
    logits = squares.gather(1, pairs.columns) / (-2 * term.sigma)
    return (logits if pairs.is_edge is None else logits.masked_fill(~pairs.is_edge, -torch.inf)).softmax(1)


def local_gradient(term: LocalTerm, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the gradient [M, M] of the local term to the student's squared distances, 0 where there is no edge."""
    if len(student) <= 1:
        return student.new_zeros(len(student), len(student))
    pairs, squares = graph_of(term, student, teacher)
    own = squares['student'].requires_grad_()
    with torch.enable_grad():
        at_pairs = [each.gather(1, pairs.columns) for each in (own, squares['teacher'])]
        loss = term.divergence(at_pairs[0], at_pairs[1], pairs, len(student))
    return torch.autograd.grad(loss, own)[0]


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


def contextual_difference(term: ContextualTerm, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the gradient [B, N, N] of the contextual term to the student's context maps, but for a factor."""
    student, teacher = in_full_precision(student.detach(), teacher)
    return term.context(student, mask) - term.context(teacher, mask)


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
