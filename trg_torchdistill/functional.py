"""The three losses of TRG, on tokens: where the equations live.

Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. The total loss is

    L = L_logit + alpha * L_inner + beta * L_local + gamma * L_global

with L_inner :class:`ContextualTerm`, L_local :class:`LocalTerm` and L_global :class:`GlobalTerm`. Superscripts S and T
stand for student and teacher. No gradient reaches the teacher. Everything is computed in float32 or wider, also under
autocast; half-precision tokens give a float32 loss. The one exception is yours to make:
``torch.set_float32_matmul_precision('high')`` turns products of float32 matrices into TF32, and with them the neighbour
search. Second derivatives are exact; they hold what a first one computes a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trg_torchdistill._blocks import sum_over_blocks
from trg_torchdistill._checks import (
    build,
    check_bool,
    check_choice,
    check_integer,
    check_matrix,
    check_positive,
    check_rows,
    check_sequence,
)
from trg_torchdistill.errors import TRGError
from trg_torchdistill.graph import (
    Edges,
    context_similarity,
    cross_entropy,
    cross_entropy_and_gradient,
    edge_square_distances,
    gaussian_affinity,
    nearest_neighbors,
    row_divergence,
)
from trg_torchdistill.tokens import normalize

KL_DIRECTIONS = ('teacher_student', 'student_teacher')
AFFINITY_SUPPORTS = ('all', 'neighbors')
TOKEN_REDUCTIONS = ('sum', 'mean')
CONTEXT_REDUCTIONS = ('mean', 'batchmean')


@dataclass(frozen=True)
class LocalTerm:
    r"""Local preserving loss: the KL divergence between the rows of the teacher's and the student's token graph.

    .. math::
        A_{ij} = \exp(-\|T_i - T_j\|^2 / 2\sigma) \text{ if } T_j \in kNN(T_i), \text{ else } 0 \qquad
        L_{local} = \sum_i KL(softmax_j(A^T_{ij}) \,\|\, softmax_j(A^S_{ij}))

    The softmax runs over all M tokens, so a non-neighbour has logit 0 and weight exp(0). Non-neighbours contribute in
    closed form: nothing of size M x M is stored, beyond a block of scores in the neighbour search.

    Args:
        num_neighbors: Neighbours k of a token, clipped to M - 1.
        sigma: Bandwidth of the Gaussian, in squared token distance.
        kl_direction: ``teacher_student`` = KL(T||S), ``student_teacher`` = KL(S||T).
        affinity_support: ``all`` M tokens, or ``neighbors``: the union of both models' neighbours of i.
        normalize_tokens: L2-normalise tokens before the graph.
        reduction: ``sum`` or ``mean`` over the tokens i.

    Raises:
        TRGError: If an option has a wrong type or is out of range.

    Note:
        The paper writes the student first for both terms; the default direction is that of Hinton's KD.
        ``normalize_tokens=False`` is the literal formula. A single token has no neighbour: the loss is 0.

    Example:
        >>> LocalTerm()(torch.eye(4), torch.eye(4)).item()
        0.0
    """

    num_neighbors: int = 8
    sigma: float = 0.5
    kl_direction: str = 'teacher_student'
    affinity_support: str = 'all'
    normalize_tokens: bool = True
    reduction: str = 'sum'

    def __post_init__(self) -> None:
        _set(self, num_neighbors=check_integer('num_neighbors', self.num_neighbors, 1))
        _set(self, sigma=check_positive('sigma', self.sigma))
        check_choice('kl_direction', self.kl_direction, KL_DIRECTIONS)
        check_choice('affinity_support', self.affinity_support, AFFINITY_SUPPORTS)
        check_bool('normalize_tokens', self.normalize_tokens)
        check_choice('reduction', self.reduction, TOKEN_REDUCTIONS)

    def __call__(self, student: Tensor, teacher: Tensor, rows: range | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            student: Student tokens [M, D_S].
            teacher: Teacher tokens [M, D_T]; row i of both is the same cell of the same image.
            rows: The tokens i over which it is reduced, those of this process; None for all.

        Raises:
            TRGError: If the tokens are no matrices of floats with equally many rows.
        """
        check_matrix('student', student)
        check_matrix('teacher', teacher)
        _check_same('number of tokens', len(student), len(teacher))
        rows = check_rows(rows, len(student))
        student, teacher = _prepare(student, teacher)
        if len(student) == 1:
            return (student * 0).sum()
        with _full_precision(student):
            student_edges, teacher_edges = self._edges(student, rows), self._edges(teacher, rows)
            num_columns = len(student) if self.affinity_support == 'all' else None
            is_teacher_first = self.kl_direction == 'teacher_student'
            pair = (teacher_edges, student_edges) if is_teacher_first else (student_edges, teacher_edges)
            divergence = row_divergence(*pair, num_columns)
            return divergence.sum() if self.reduction == 'sum' else divergence.mean()

    def neighbors(self, tokens: Tensor, rows: range | None = None) -> Edges:
        """Returns the squared distances [m, k] of the tokens of ``rows`` to their neighbours, and which these are."""
        tokens = normalize(tokens) if self.normalize_tokens else tokens
        neighbors = nearest_neighbors(tokens, self.num_neighbors, rows=rows)
        return edge_square_distances(tokens, neighbors, rows=rows), neighbors

    def _edges(self, tokens: Tensor, rows: range) -> Edges:
        """The affinities of the tokens of ``rows`` to their neighbours, and which these are."""
        square_distances, neighbors = self.neighbors(tokens, rows)
        return gaussian_affinity(square_distances, self.sigma), neighbors


@dataclass(frozen=True)
class GlobalTerm:
    r"""Global relationship loss: InfoNCE of each student token against all teacher tokens.

    .. math::
        L_{global} = \sum_i -\log \frac{\exp(sim(T^S_i, T^T_i)/\tau)}{\sum_j \exp(sim(T^S_i, T^T_j)/\tau)},
        \qquad sim = \text{cosine}

    Args:
        reduction: ``mean`` or ``sum`` over the tokens i.

    Raises:
        TRGError: If an option has a wrong type or is out of range.

    Note:
        The paper sums over tokens; ``mean`` is the default because a token's value is O(log M) whatever M is.

    Example:
        >>> GlobalTerm()(torch.ones(4, 8), torch.ones(4, 8)).exp().round().item()
        4.0
    """

    reduction: str = 'mean'

    def __post_init__(self) -> None:
        check_choice('reduction', self.reduction, TOKEN_REDUCTIONS)

    def __call__(self, student: Tensor, teacher: Tensor, temperature: float = 0.1, rows: range | None = None) -> Tensor:
        """Returns the loss, a scalar between 0 and about log M + 2/tau (for ``mean``).

        Args:
            student: Student tokens [m, D] of ``rows``, projected to the teacher's width.
            teacher: Teacher tokens [M, D].
            temperature: tau, > 0.
            rows: The tokens i over which it is reduced, those of this process; None for all.

        Raises:
            TRGError: If an argument has a wrong type or is out of range, or the shapes do not fit.
        """
        check_matrix('student', student)
        check_matrix('teacher', teacher)
        rows = check_rows(rows, len(teacher))
        _check_same('number of tokens', len(student), len(rows))
        _check_same('width', student.shape[1], teacher.shape[1])
        temperature = check_positive('temperature', temperature)
        student, teacher = _prepare(student, teacher)
        with _full_precision(student):
            queries, keys = normalize(student) / temperature, normalize(teacher)
            targets = torch.arange(rows.start, rows.stop, device=keys.device)
            row_bytes = len(keys) * keys.element_size()
            closed_form = cross_entropy_and_gradient
            loss = sum_over_blocks(cross_entropy, row_bytes, queries, targets, keys, closed_form=closed_form)
            return loss / len(queries) if self.reduction == 'mean' else loss


@dataclass(frozen=True)
class ContextualTerm:
    r"""Token-wise contextual loss: the mean squared error between the context similarities of an image.

    .. math::
        L_{inner} = MSE(CS^S, CS^T), \qquad CS = softmax(F F^\top / \sqrt D) \in R^{N \times N}

    Args:
        normalize_tokens: L2-normalise the tokens F, then divide by ``temperature`` instead of sqrt(D).
        temperature: Divisor with ``normalize_tokens``, > 0.
        reduction: ``mean`` over all entries, or ``batchmean``: the sum over N x N, the mean over B.

    Raises:
        TRGError: If an option has a wrong type or is out of range.

    Note:
        One token an image has the context [[1]] for every model: the loss is 0.

    Example:
        >>> ContextualTerm()(torch.ones(2, 4, 8), torch.ones(2, 4, 16)).item()
        0.0
    """

    normalize_tokens: bool = False
    temperature: float = 0.1
    reduction: str = 'mean'

    def __post_init__(self) -> None:
        check_bool('normalize_tokens', self.normalize_tokens)
        _set(self, temperature=check_positive('temperature', self.temperature))
        check_choice('reduction', self.reduction, CONTEXT_REDUCTIONS)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            student: Student tokens [B, N, D_S].
            teacher: Teacher tokens [B, N, D_T]; token i of both is the same cell. The widths may differ.

        Raises:
            TRGError: If the tokens are no sequences of floats with equal numbers of images and tokens.
        """
        check_sequence('student', student)
        check_sequence('teacher', teacher)
        _check_same('batch size', len(student), len(teacher))
        _check_same('number of tokens', student.shape[1], teacher.shape[1])
        student, teacher = _prepare(student, teacher)
        num_images, num_tokens, _ = student.shape
        with _full_precision(student):
            row_bytes = num_tokens**2 * student.element_size()
            square_error = sum_over_blocks(self._square_error, row_bytes, student, teacher)
            return square_error / (num_tokens**2 * num_images if self.reduction == 'mean' else num_images)

    def context(self, tokens: Tensor) -> Tensor:
        """Returns the context similarity [B, N, N] of the tokens [B, N, D] of each image."""
        if self.normalize_tokens:
            return context_similarity(normalize(tokens), self.temperature)
        return context_similarity(tokens)

    def _square_error(self, student: Tensor, teacher: Tensor) -> Tensor:
        return functional.mse_loss(self.context(student), self.context(teacher), reduction='sum')


def local_preserving_loss(
    student: Tensor, teacher: Tensor, num_neighbors: int = 8, sigma: float = 0.5, **options: Any
) -> Tensor:
    """Returns :class:`LocalTerm` with these options, of student tokens [M, D_S] and teacher tokens [M, D_T]."""
    options |= {'num_neighbors': num_neighbors, 'sigma': sigma}
    return build(LocalTerm, 'local_preserving_loss', options)(student, teacher)


def global_relationship_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1, **options: Any) -> Tensor:
    """Returns :class:`GlobalTerm` with these options, of student and teacher tokens [M, D]."""
    return build(GlobalTerm, 'global_relationship_loss', options)(student, teacher, temperature)


def contextual_loss(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    """Returns :class:`ContextualTerm` with these options, of tokens [B, N, D_S] and [B, N, D_T] of the same images."""
    return build(ContextualTerm, 'contextual_loss', options)(student, teacher)


def _set(term: object, **values: float) -> None:
    """Keeps checked numbers in a frozen dataclass, as plain ones."""
    for name, value in values.items():
        object.__setattr__(term, name, value)


def _prepare(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common dtype, float32 or wider, and the teacher without gradient."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


@contextmanager
def _full_precision(tokens: Tensor) -> Iterator[None]:
    with torch.autocast(tokens.device.type, enabled=False):
        yield


def _check_same(what: str, student: int, teacher: int) -> None:
    if student != teacher:
        raise TRGError(f'expected `student` and `teacher` to have the same {what}, got {student} and {teacher}')
