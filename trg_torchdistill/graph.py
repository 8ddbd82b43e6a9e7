"""The token-level relationship graph: nearest neighbours, Gaussian affinities, and the divergence of two graphs' rows.

Shapes: M tokens in the graph, D features, k neighbours a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trg_torchdistill._blocks import rows_per_block
from trg_torchdistill._checks import check_integer, check_matrix, check_positive, check_rows
from trg_torchdistill._moved import moved

__getattr__ = moved(__name__, context_similarity='trg_torchdistill.context')


@torch.no_grad()
def nearest_neighbors(tokens: Tensor, num_neighbors: int, *, rows: range | None = None) -> Tensor:
    """Returns the indices [M, k] of each token's Euclidean nearest neighbours, itself excluded, in no order.

    The M x M scores are computed a block of rows at a time. They have the dtype of the tokens: two distances that
    differ by less than its epsilon times the largest squared distance to the mean may swap, which concerns raw float32
    tokens in groups more than about 100 apart, not normalised ones.

    Args:
        tokens: Tokens [M, D].
        num_neighbors: Neighbours k, clipped to M - 1.
        rows: The m tokens whose neighbours among all M are returned, [m, k]; None for all.

    Raises:
        TRGError: If an argument has a wrong type; if ``tokens`` is not [M, D] or another argument is out of range.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [5.0]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    check_matrix('tokens', tokens)
    count = len(tokens)
    k = min(check_integer('num_neighbors', num_neighbors, 1), max(count - 1, 0))
    rows = check_rows(rows, count)
    # Distances do not change when all tokens move together; around the origin the Gram form loses the fewest digits.
    centered = tokens - tokens.mean(0)
    square_norms = centered.square().sum(1)
    step = rows_per_block(count * tokens.element_size(), tokens)
    block = centered.new_empty(min(step, len(rows)), count)
    neighbors = []
    for start in range(rows.start, max(rows.stop, rows.start + 1), step):
        queries = centered[start : min(start + step, rows.stop)]
        scores = torch.addmm(square_norms, queries, centered.T, alpha=-2, out=block[: len(queries)])
        scores.diagonal(start).fill_(torch.inf)
        neighbors.append(scores.topk(k, dim=1, largest=False, sorted=False).indices)
    return torch.cat(neighbors)


def edge_square_distances(tokens: Tensor, neighbors: Tensor, *, rows: range | None = None) -> Tensor:
    """Returns the squared Euclidean distances [m, k] of the tokens of ``rows`` to their neighbours [m, k] among all M.

    Neither the m x k x D differences nor their gradients are stored, unless for a second derivative.

    Args:
        tokens: Tokens [M, D].
        neighbors: Indices [m, k] of their neighbours.
        rows: The m tokens; None for all.
    """
    distances: Tensor = _EdgeSquareDistance.apply(tokens, neighbors, check_rows(rows, len(tokens)).start)
    return distances


class _EdgeSquareDistance(torch.autograd.Function):
    """d_ij = |t_i - t_j|^2, both ways a block of rows at a time; the gradient is made of differentiable operations."""

    @staticmethod
    def forward(tokens: Tensor, neighbors: Tensor, start: int) -> Tensor:
        blocks = _blocks(tokens, neighbors, start)
        return torch.cat([_differences(tokens, own, columns).square_().sum(2) for own, columns in blocks])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        tokens, neighbors, ctx.start = inputs
        ctx.save_for_backward(tokens, neighbors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        tokens, neighbors = ctx.saved_tensors
        result = torch.zeros_like(tokens)
        for own, columns, weights in _blocks(tokens, neighbors, ctx.start, 2 * gradient):
            pulls = _differences(tokens, own, columns).mul_(weights[:, :, None])
            result[own].sub_(pulls.sum(1))
            result.index_add_(0, columns.flatten(), pulls.flatten(0, 1))
        return result, None, None


def _blocks(tokens: Tensor, neighbors: Tensor, start: int, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """Blocks of the tokens from ``start`` on whose differences to their neighbours fit the budget, and their rows."""
    step = rows_per_block(tokens[0].nbytes * neighbors.shape[1], tokens)
    for first in range(0, max(len(neighbors), 1), step):
        parts = [part[first : first + step] for part in (neighbors, *others)]
        yield slice(start + first, start + first + len(parts[0])), *parts


def _differences(tokens: Tensor, own: slice, columns: Tensor) -> Tensor:
    """t_j - t_i, [rows, k, D], of the neighbours j of a block of tokens i."""
    return functional.embedding(columns, tokens).sub_(tokens[own, None])


def square_distances(queries: Tensor, tokens: Tensor) -> Tensor:
    """Returns the squared Euclidean distances [m, M] of queries [m, D] to all tokens [M, D], by a product of matrices.

    They are as exact as the neighbour search: to epsilon times the largest squared norm, and never below 0. Centre raw
    tokens first.
    """
    square_norms = queries.square().sum(1)[:, None] + tokens.square().sum(1)
    squares = torch.addmm(square_norms, queries, tokens.T, alpha=-2)
    return squares - squares.detach().clamp(max=0)


def gaussian_affinity(square_distances: Tensor, sigma: float) -> Tensor:
    """Returns A = exp(-d^2 / (2*sigma)), the weight of an edge (note 2*sigma, not 2*sigma^2)."""
    return torch.exp(square_distances / (-2 * check_positive('sigma', sigma)))


@dataclass(frozen=True)
class Pairs:
    """The pairs of tokens on which two graphs are compared: in row i of each tensor [m, K] are those of token i.

    Attributes:
        columns: The other token j of each pair.
        is_edge: Which pairs count, None for all; where both models name a neighbour, it stands there twice.
        of_student: Which pairs are edges in the student's own graph, None for all.
        of_teacher: Which pairs are edges in the teacher's, None for all.
    """

    columns: Tensor
    is_edge: Tensor | None = None
    of_student: Tensor | None = None
    of_teacher: Tensor | None = None

    @classmethod
    def union(cls, student: Tensor, teacher: Tensor) -> Pairs:
        """Returns the pairs that either model has, K = 2k, of both models' neighbours [m, k]."""
        columns, order = torch.cat([student, teacher], 1).sort(1)
        before, after = (functional.pad(columns, side, value=-1) for side in ((1, 0), (0, 1)))
        is_edge, is_shared = columns != before[:, :-1], columns == after[:, 1:]
        is_students = order < student.shape[1]
        return cls(columns, is_edge, is_students | is_shared, ~is_students | is_shared)

    def of(self, side: str) -> Tensor:
        """Returns which pairs are edges in the graph of the ``student`` or the ``teacher``, and count."""
        found = torch.ones_like(self.columns, dtype=torch.bool)
        for mask in (self.is_edge, self.of_student if side == 'student' else self.of_teacher):
            found = found if mask is None else found & mask
        return found


@dataclass(frozen=True)
class Rows:
    """The rows of a graph of ``count`` tokens, made of the pairs that are edges.

    Attributes:
        count: Number of tokens M.
        is_edge: Which pairs [m, K] are edges, None for all.
        columns: None if the pair (i, j) stands in row i; the tokens j, [m, K], if it stands in row j.
    """

    count: int
    is_edge: Tensor | None = None
    columns: Tensor | None = None

    def sum(self, pairs: Tensor) -> Tensor:
        """Returns the sum of each row, of values [m, K]."""
        edges = pairs if self.is_edge is None else pairs * self.is_edge
        if self.columns is None:
            return edges.sum(1)
        return edges.new_zeros(self.count).index_add(0, self.columns.flatten(), edges.flatten())

    def below_largest(self, pairs: Tensor) -> Tensor:
        """Returns how far each value is below the largest of its row, 0 where there is no edge."""
        edges = pairs if self.is_edge is None else pairs.masked_fill(~self.is_edge, -torch.inf)
        if self.columns is None:
            largest = edges.detach().amax(1, keepdim=True)
        else:
            places, zeros = self.columns.flatten(), pairs.new_zeros(self.count)
            largest = zeros.scatter_reduce(0, places, edges.detach().flatten(), 'amax', include_self=False)[
                self.columns
            ]
        return pairs - largest if self.is_edge is None else (pairs - largest).masked_fill(~self.is_edge, 0)


def row_divergence(p: Tensor, q: Tensor, rows: Rows, num_columns: int | None = None) -> Tensor:
    """Returns the divergence KL(p || q) of the softmax of each row of two graphs; 0 for a row without edges.

    The softmax runs over ``num_columns`` columns, those without an edge having logit 0, or, if that is None, over the
    edges alone. No row is stored beyond its edges.

    Args:
        p: Logits [m, K] of a graph, each at least 0, or the largest of a row 0.
        q: The same of the other graph.
        rows: The rows that the pairs make.
        num_columns: Columns of both graphs, None for those with an edge.
    """
    p_weights, q_weights = p.exp(), q.exp()
    total = rows.sum(p_weights) if num_columns is None else num_columns + rows.sum(p.expm1())
    total = total.masked_fill(total == 0, 1)
    # log Z_q - log Z_p by log1p: each is about log M, and their difference is small.
    log_ratio_of_totals = torch.log1p(rows.sum(q_weights - p_weights) / total)
    return rows.sum(p_weights * (p - q)) / total + log_ratio_of_totals


def cross_entropy(queries: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
    """Returns the sum over the queries of the cross-entropy of their logits q K^T, with a key of each as its target."""
    return functional.cross_entropy(queries @ keys.T, targets, reduction='sum')


def cross_entropy_with_gradient(queries: Tensor, targets: Tensor, keys: Tensor) -> tuple[list[Tensor], Tensor]:
    """Returns its gradient to the queries, softmax(q K^T) K less the key of each, and the same."""
    logits = queries @ keys.T
    largest, own = logits.amax(1, keepdim=True), logits.gather(1, targets[:, None])
    weights = logits.sub_(largest).exp_()
    totals = weights.sum(1, keepdim=True)
    gradient = (weights @ keys).div_(totals).sub_(keys[targets])
    return [gradient], (totals.log() + largest - own).sum()


def relative_entropy(queries: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
    """Returns the sum over the rows of KL(softmax(t K^T) || softmax(q K^T)), of queries q and targets t."""
    return _relative_entropy(*_log_softmaxes(queries, targets, keys))


def relative_entropy_with_gradient(queries: Tensor, targets: Tensor, keys: Tensor) -> tuple[list[Tensor], Tensor]:
    """Returns its gradient to the queries, (softmax(q K^T) - softmax(t K^T)) K, and the same."""
    log_p, log_target = _log_softmaxes(queries, targets, keys)
    value = _relative_entropy(log_p, log_target)
    return [log_p.exp_().sub_(log_target.exp_()) @ keys], value


def _log_softmaxes(queries: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    return (queries @ keys.T).log_softmax(1), (targets @ keys.T).log_softmax(1)


def _relative_entropy(log_p: Tensor, log_target: Tensor) -> Tensor:
    return functional.kl_div(log_p, log_target, reduction='sum', log_target=True)
