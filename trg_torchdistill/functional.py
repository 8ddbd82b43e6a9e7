"""The three losses of TRG, on tokens: where the equations live.

Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. The total loss is

    L = L_logit + alpha * L_inner + beta * L_local + gamma * L_global

with L_inner :class:`~trg_torchdistill.context.ContextualTerm`, L_local :class:`LocalTerm` and L_global
:class:`GlobalTerm`. Superscripts S and T stand for student and teacher. No gradient reaches the teacher. Everything is
computed in float32 or wider, also under autocast; half-precision tokens give a float32 loss. The one exception is yours
to make: ``torch.set_float32_matmul_precision('high')`` turns products of float32 matrices into TF32, and with them the
neighbour search. Second derivatives are exact; they hold what a first one computes a block at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill._blocks import sum_over_blocks
from trg_torchdistill._checks import (
    build,
    check_bool,
    check_choice,
    check_integer,
    check_matrix,
    check_positive,
    check_rows,
    check_same,
    set_checked,
)
from trg_torchdistill.context import ContextualTerm as ContextualTerm
from trg_torchdistill.context import contextual_loss as contextual_loss
from trg_torchdistill.errors import TRGError
from trg_torchdistill.graph import (
    Pairs,
    Rows,
    cross_entropy,
    cross_entropy_with_gradient,
    edge_square_distances,
    gaussian_affinity,
    nearest_neighbors,
    relative_entropy,
    relative_entropy_with_gradient,
    row_divergence,
    square_distances,
)
from trg_torchdistill.tokens import in_full_precision, normalize, without_autocast

KL_DIRECTIONS = ('teacher_student', 'student_teacher')
EDGES = ('own', 'teacher', 'union')
ROW_DISTRIBUTIONS = ('softmax_all', 'softmax_edges', 'proportional')
EDGE_DIRECTIONS = ('out', 'in')
TARGETS = ('self', 'teacher')
TOKEN_REDUCTIONS = ('sum', 'mean')


@dataclass(frozen=True)
class LocalTerm:
    r"""Local preserving loss: the KL divergence between the rows of the teacher's and the student's token graph.

    .. math::
        A_{ij} = \exp(-\|T_i - T_j\|^2 / 2\sigma) \text{ if } (i, j) \in E, \text{ else } 0 \qquad
        L_{local} = \sum_i KL(\mathrm{softmax}_j\, A^T_{ij} \,\|\, \mathrm{softmax}_j\, A^S_{ij})

    The paper's reading is the default: E are the k nearest neighbours in the graph's own model, and the softmax runs
    over all M tokens, so a non-neighbour has logit 0 and weight exp(0). It has a gradient on the student's own edges
    alone: with ``edges`` ``teacher`` or ``union``, a neighbour of the teacher's that the student does not see is pulled
    closer. Nothing of size M x M is stored beyond a block of it.

    Args:
        num_neighbors: Neighbours k of a token, clipped to M - 1; None for all other tokens, the complete graph.
        sigma: Bandwidth of the Gaussian, in squared token distance.
        edges: ``own``: each graph has its own model's; ``teacher``: both have the teacher's; ``union``: both have those
            of either.
        row_distribution: A row is ``softmax_all``: the softmax of A over all M tokens; ``softmax_edges``: that over the
            edges of either graph; ``proportional``: A_ij / sum_j A_ij over the edges, softmax_j(-d^2 / 2 sigma).
        edge_direction: The edges of row i are ``out``: {j : j in kNN(i)}, or ``in``: {j : i in kNN(j)}. A row without
            edges is 0.
        kl_direction: ``teacher_student`` = KL(T||S), ``student_teacher`` = KL(S||T).
        normalize_tokens: L2-normalise tokens before the graph.
        reduction: ``sum`` or ``mean`` over the tokens i.

    Raises:
        TRGError: If an option has a wrong type or is out of range; if ``proportional`` rows have unequal supports, as
            with ``own`` edges and a k.

    Note:
        The paper writes the student first for both terms; the default direction is that of Hinton's KD.
        ``normalize_tokens=False`` is the literal formula. A single token has no neighbour: the loss is 0. In the
        complete graph d^2 comes from a product of matrices, as exact as the neighbour search.

    Example:
        >>> LocalTerm()(torch.eye(4), torch.eye(4)).item()
        0.0
    """

    num_neighbors: int | None = 8
    sigma: float = 0.5
    edges: str = 'own'
    row_distribution: str = 'softmax_all'
    edge_direction: str = 'out'
    kl_direction: str = 'teacher_student'
    normalize_tokens: bool = True
    reduction: str = 'sum'

    def __post_init__(self) -> None:
        if self.num_neighbors is not None:
            set_checked(self, num_neighbors=check_integer('num_neighbors', self.num_neighbors, 1))
        set_checked(self, sigma=check_positive('sigma', self.sigma))
        check_choice('edges', self.edges, EDGES)
        check_choice('row_distribution', self.row_distribution, ROW_DISTRIBUTIONS)
        check_choice('edge_direction', self.edge_direction, EDGE_DIRECTIONS)
        check_choice('kl_direction', self.kl_direction, KL_DIRECTIONS)
        check_bool('normalize_tokens', self.normalize_tokens)
        check_choice('reduction', self.reduction, TOKEN_REDUCTIONS)
        if self.row_distribution == 'proportional' and self.edges == 'own' and self.num_neighbors is not None:
            raise TRGError(
                "expected `edges` to be 'teacher' or 'union' with `row_distribution` 'proportional', got 'own': "
                "rows of unequal edges have an infinite divergence; `row_distribution: 'softmax_edges'` compares them"
            )

    def __call__(self, student: Tensor, teacher: Tensor, rows: range | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            student: Student tokens [M, D_S].
            teacher: Teacher tokens [M, D_T]; row i of both is the same cell of the same image.
            rows: The tokens i over which it is reduced, those of this process; None for all. Of none the loss is 0.

        Raises:
            TRGError: If the tokens are no matrices of floats of equal lengths; if edges go ``in``, of some ``rows``.
        """
        check_matrix('student', student)
        check_matrix('teacher', teacher)
        check_same('number of tokens', len(student), len(teacher))
        rows = check_rows(rows, len(student))
        if self.edge_direction == 'in' and len(rows) < len(student):
            raise TRGError("expected `edge_direction` to be 'out' for some `rows` of the graph, got 'in'")
        student, teacher = in_full_precision(student, teacher)
        if len(rows) == 0 or len(student) == 1:  # the gradient goes to the processes that the others came from
            return (student[: len(rows)] * 0).sum() + (teacher[: len(rows)] * 0).sum()
        with without_autocast(student):
            student, teacher = self.placed(student), self.placed(teacher)
            if self.num_neighbors is None:
                places = torch.arange(rows.start, rows.stop, device=student.device)
                of_rows = (student[rows.start : rows.stop], teacher[rows.start : rows.stop], places)
                row_bytes = len(student) * student.element_size()
                loss = sum_over_blocks(self._complete_rows, row_bytes, of_rows, (student, teacher))
            else:
                pairs = self.pairs(student, teacher, rows)
                student_squares = edge_square_distances(student, pairs.columns, rows=rows)
                teacher_squares = edge_square_distances(teacher, pairs.columns, rows=rows)
                loss = self.divergence(student_squares, teacher_squares, pairs, len(student))
            return loss / len(rows) if self.reduction == 'mean' else loss

    def placed(self, tokens: Tensor) -> Tensor:
        """Returns the tokens of the graph: normalised, or around their mean, which no distance sees."""
        return normalize(tokens) if self.normalize_tokens else tokens - tokens.detach().mean(0)

    def pairs(self, student: Tensor, teacher: Tensor, rows: range | None = None) -> Pairs:
        """Returns the edges of the ``rows`` of both graphs, of tokens as :meth:`placed`."""
        k = len(teacher) if self.num_neighbors is None else self.num_neighbors
        teachers = nearest_neighbors(teacher, k, rows=rows)
        if self.edges == 'teacher' or k >= len(teacher) - 1:
            return Pairs(teachers)
        pairs = Pairs.union(nearest_neighbors(student, k, rows=rows), teachers)
        return pairs if self.edges == 'own' else Pairs(pairs.columns, pairs.is_edge)

    def divergence(self, student_squares: Tensor, teacher_squares: Tensor, pairs: Pairs, num_tokens: int) -> Tensor:
        """Returns the sum of the rows' divergences, given the squared distances [m, K] of the pairs."""
        goes_in = self.edge_direction == 'in' and self.num_neighbors is not None
        rows = Rows(num_tokens, pairs.is_edge, pairs.columns if goes_in else None)
        student = self._logits(student_squares, pairs.of_student, rows)
        teacher = self._logits(teacher_squares, pairs.of_teacher, rows)
        p, q = (teacher, student) if self.kl_direction == 'teacher_student' else (student, teacher)
        num_columns = num_tokens if self.row_distribution == 'softmax_all' else None
        return row_divergence(p, q, rows, num_columns).sum()

    def _logits(self, squares: Tensor, of_model: Tensor | None, rows: Rows) -> Tensor:
        """What the softmax of a row is of; the largest of a ``proportional`` one becomes 0."""
        if self.row_distribution == 'proportional':
            return rows.below_largest(squares / (-2 * self.sigma))
        affinity = gaussian_affinity(squares, self.sigma)
        return affinity if of_model is None else affinity * of_model

    def _complete_rows(
        self, student_rows: Tensor, teacher_rows: Tensor, places: Tensor, student: Tensor, teacher: Tensor
    ) -> Tensor:
        """The rows' divergences of some tokens in the complete graph, each of these at its place among all."""
        every = torch.arange(len(student), device=places.device).expand(len(places), -1)
        is_edge = every != places[:, None]
        pairs = Pairs(every, is_edge)
        squares = square_distances(student_rows, student), square_distances(teacher_rows, teacher)
        return self.divergence(*squares, pairs, len(student))


@dataclass(frozen=True)
class GlobalTerm:
    r"""Global relationship loss: how each student token stands to all teacher tokens.

    .. math::
        L_{global} = \sum_i -\log p_{ii}, \qquad p_{ij} = \mathrm{softmax}_j(sim(T^S_i, T^T_j) / \tau),
        \qquad sim = \text{cosine}

    That is InfoNCE, ``targets`` ``self``. ``teacher`` has soft targets instead, so that a token of the same class is no
    negative: KL(q_i || p_i) with q_ij = softmax_j(sim(T^T_i, T^T_j) / tau_t), j = i included.

    Args:
        reduction: ``mean`` or ``sum`` over the tokens i.
        targets: ``self`` or ``teacher``.

    Raises:
        TRGError: If an option has a wrong type or is out of range.

    Note:
        The paper sums over tokens; ``mean`` is the default because a token's value is O(log M) whatever M is.

    Example:
        >>> GlobalTerm()(torch.ones(4, 8), torch.ones(4, 8)).exp().round().item()
        4.0
    """

    reduction: str = 'mean'
    targets: str = 'self'

    def __post_init__(self) -> None:
        check_choice('targets', self.targets, TARGETS)
        check_choice('reduction', self.reduction, TOKEN_REDUCTIONS)

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 0.1,
        target_temperature: float | None = None,
        queue: Tensor | None = None,
        rows: range | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar; of ``self`` between 0 and about log(M + Q) + 2/tau (for ``mean``).

        Args:
            student: Student tokens [m, D] of ``rows``, projected to the teacher's width.
            teacher: Teacher tokens [M, D].
            temperature: tau, > 0.
            target_temperature: tau_t of soft targets, > 0; None for tau.
            queue: Teacher tokens [Q, D] of other batches, which are columns too; None for none.
            rows: The tokens i over which it is reduced, those of this process; None for all. Of none the loss is 0.

        Raises:
            TRGError: If an argument has a wrong type or is out of range, or the shapes do not fit.
        """
        check_matrix('student', student)
        check_matrix('teacher', teacher)
        rows = check_rows(rows, len(teacher))
        check_same('number of tokens', len(student), len(rows))
        check_same('width', student.shape[1], teacher.shape[1])
        temperature = check_positive('temperature', temperature)
        own = temperature if target_temperature is None else target_temperature
        target_temperature = check_positive('target_temperature', own)
        student, teacher = in_full_precision(student, teacher)
        if len(rows) == 0:
            return student.sum()
        with without_autocast(student):
            queries, keys = normalize(student) / temperature, normalize(teacher)
            targets = keys[rows.start : rows.stop] / target_temperature
            if queue is not None:
                check_matrix('queue', queue)
                check_same('width', queue.shape[1], teacher.shape[1], ('queue', 'teacher'))
                keys = torch.cat([keys, normalize(queue.to(keys))])
            formulas = relative_entropy, relative_entropy_with_gradient
            if self.targets == 'self':
                targets = torch.arange(rows.start, rows.stop, device=keys.device)
                formulas = cross_entropy, cross_entropy_with_gradient
            row_bytes = len(keys) * keys.element_size()
            loss = sum_over_blocks(formulas[0], row_bytes, (queries, targets), (keys,), formulas[1])
            return loss / len(queries) if self.reduction == 'mean' else loss


def local_preserving_loss(
    student: Tensor, teacher: Tensor, num_neighbors: int | None = 8, sigma: float = 0.5, **options: Any
) -> Tensor:
    """Returns :class:`LocalTerm` with these options, of student tokens [M, D_S] and teacher tokens [M, D_T]."""
    options |= {'num_neighbors': num_neighbors, 'sigma': sigma}
    return build(LocalTerm, 'local_preserving_loss', options)(student, teacher)


def global_relationship_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 0.1,
    target_temperature: float | None = None,
    queue: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Returns :class:`GlobalTerm` with these options, of student and teacher tokens [M, D] and a queue [Q, D]."""
    term = build(GlobalTerm, 'global_relationship_loss', options)
    return term(student, teacher, temperature, target_temperature, queue)
