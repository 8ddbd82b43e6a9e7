"""The token-level relationship graph: nearest neighbours, Gaussian affinities, and an image's context similarity.

Shapes: M tokens in the graph, D features, k neighbours a token; B images of N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trg_torchdistill._blocks import rows_per_block
from trg_torchdistill._checks import check_integer, check_matrix, check_positive, check_rows, check_sequence

Edges = tuple[Tensor, Tensor]


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
    k = min(check_integer('num_neighbors', num_neighbors, 1), count - 1)
    rows = check_rows(rows, count)
    # Distances do not change when all tokens move together; around the origin the Gram form loses the fewest digits.
    centered = tokens - tokens.mean(0)
    square_norms = centered.square().sum(1)
    step = rows_per_block(count * tokens.element_size(), tokens)
    block = centered.new_empty(min(step, len(rows)), count)
    neighbors = []
    for start in range(rows.start, rows.stop, step):
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
            result[own] -= pulls.sum(1)
            result.index_add_(0, columns.flatten(), pulls.flatten(0, 1))
        return result, None, None


def _blocks(tokens: Tensor, neighbors: Tensor, start: int, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """Blocks of the tokens from ``start`` on whose differences to their neighbours fit the budget, and their rows."""
    step = rows_per_block(tokens[0].nbytes * neighbors.shape[1], tokens)
    for first in range(0, len(neighbors), step):
        parts = [part[first : first + step] for part in (neighbors, *others)]
        yield slice(start + first, start + first + len(parts[0])), *parts


def _differences(tokens: Tensor, own: slice, columns: Tensor) -> Tensor:
    """t_j - t_i, [rows, k, D], of the neighbours j of a block of tokens i."""
    return functional.embedding(columns, tokens).sub_(tokens[own, None])


def gaussian_affinity(square_distances: Tensor, sigma: float) -> Tensor:
    """Returns A = exp(-d^2 / (2*sigma)), the weight of an edge (note 2*sigma, not 2*sigma^2).

    An infinite distance gives nan: it comes from an infinite token, which must not pass for a distant one.
    """
    affinity = torch.exp(square_distances / (-2 * check_positive('sigma', sigma)))
    return affinity.masked_fill(square_distances == torch.inf, torch.nan)


def row_divergence(p: Edges, q: Edges, num_columns: int | None) -> Tensor:
    """Returns the divergence KL(p || q) of the softmax of each row of two graphs, [m].

    The softmax runs over ``num_columns`` columns, those without an edge having logit 0, or, if that is None, over those
    in which either graph has an edge. No row is stored beyond its edges.

    Args:
        p: Affinities [m, k] of the edges of a graph and their columns [m, k], distinct in a row.
        q: The same of the other graph.
        num_columns: Columns of both graphs, None for those with an edge.
    """
    p_logits, q_logits, is_edge = _on_union(p, q)
    p_weights, q_weights = p_logits.exp() * is_edge, q_logits.exp() * is_edge
    num_others = 0 if num_columns is None else num_columns - is_edge.sum(1)
    total = p_weights.sum(1) + num_others
    # log Z_q - log Z_p by log1p: each is about log M, and their difference is small.
    log_ratio_of_totals = torch.log1p((q_weights - p_weights).sum(1) / total)
    return (p_weights * (p_logits - q_logits)).sum(1) / total + log_ratio_of_totals


def _on_union(p: Edges, q: Edges) -> tuple[Tensor, Tensor, Tensor]:
    """Both graphs' affinities, 0 where one has no edge, in the columns of p and those of q; and which are not twice."""
    (p_edges, p_columns), (q_edges, q_columns) = p, q
    places, is_shared = _find(p_columns, q_columns)
    q_on_p = torch.zeros_like(p_edges).scatter_add(1, places, q_edges * is_shared)
    p_on_q = p_edges.gather(1, places) * is_shared
    is_edge = torch.cat([torch.ones_like(p_columns, dtype=torch.bool), ~is_shared], 1)
    return torch.cat([p_edges, p_on_q], 1), torch.cat([q_on_p, q_edges], 1), is_edge


def _find(columns: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of the ``wanted`` columns [m, k] stands in its row of ``columns``, and whether it does."""
    ordered, order = columns.sort(1)
    places = torch.searchsorted(ordered, wanted).clamp_(max=columns.shape[1] - 1)
    return order.gather(1, places), ordered.gather(1, places) == wanted


def context_similarity(tokens: Tensor, temperature: float | None = None) -> Tensor:
    """Returns an image's context similarity CS = softmax(F F^T / sqrt(D)), [B, N, N], of its tokens F, [B, N, D].

    Args:
        tokens: Tokens [B, N, D].
        temperature: Divisor in place of sqrt(D), or None.

    Raises:
        TRGError: If ``tokens`` is not [B, N, D].
    """
    check_sequence('tokens', tokens)
    divisor = tokens.shape[2] ** 0.5 if temperature is None else temperature
    return torch.bmm(tokens, tokens.transpose(1, 2)).div_(divisor).softmax(2)


def cross_entropy(queries: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
    """Returns the sum over the queries of the cross-entropy of their logits q K^T, with a key of each as its target."""
    return functional.cross_entropy(queries @ keys.T, targets, reduction='sum')


def cross_entropy_and_gradient(queries: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the same and its gradient to the queries, softmax(q K^T) K less the key of each."""
    log_p = (queries @ keys.T).log_softmax(1)
    value = -log_p.gather(1, targets[:, None]).sum()
    return value, log_p.exp_() @ keys - keys[targets]
