"""The token-level relationship graph: nearest neighbours, Gaussian affinities, and an image's context similarity.

Shapes: M tokens in the graph, D features, k neighbours a token; B images of N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trg_torchdistill._checks import check_integer, check_matrix, check_positive, check_sequence

EDGE_CHUNK_BYTES = 2**22


@torch.no_grad()
def nearest_neighbors(tokens: Tensor, num_neighbors: int, *, chunk_bytes: int = 2**26) -> Tensor:
    """Returns the indices [M, k] of each token's Euclidean nearest neighbours, itself excluded, in no order.

    The M x M scores are computed a block of rows at a time, each block of at most ``chunk_bytes``. They have the dtype
    of the tokens: two distances that differ by less than its epsilon times the largest squared distance to the mean may
    swap, which concerns raw float32 tokens in groups more than about 100 apart, not normalised ones.

    Args:
        tokens: Tokens [M, D].
        num_neighbors: Neighbours k, clipped to M - 1.
        chunk_bytes: Memory budget of a block of scores, in bytes.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If ``tokens`` is not [M, D] or ``num_neighbors`` is less than 1.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [5.0]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    check_matrix('tokens', tokens)
    check_integer('num_neighbors', num_neighbors, 1)
    check_integer('chunk_bytes', chunk_bytes, 1)
    count = len(tokens)
    k = min(num_neighbors, count - 1)
    # Distances do not change when all tokens move together; around the origin the Gram form loses the fewest digits.
    centered = tokens.detach() - tokens.detach().mean(0)
    half_square_norms = centered.square().sum(1) / 2
    rows_per_chunk = max(1, chunk_bytes // (count * tokens.element_size()))
    neighbors = []
    for rows in torch.split(torch.arange(count, device=tokens.device), rows_per_chunk):
        scores = torch.addmm(half_square_norms, centered[rows], centered.T, alpha=-1)
        scores.scatter_(1, rows[:, None], torch.inf)
        neighbors.append(scores.topk(k, dim=1, largest=False, sorted=False).indices)
    return torch.cat(neighbors)


def edge_square_distances(tokens: Tensor, neighbors: Tensor) -> Tensor:
    """Returns the squared Euclidean distances [M, k] of tokens [M, D] to their neighbours [M, k].

    Neither the M x k x D differences nor their gradients are stored. There is no second derivative.
    """
    distances: Tensor = _EdgeSquareDistance.apply(tokens, neighbors)
    return distances


class _EdgeSquareDistance(torch.autograd.Function):
    """d_ij = |t_i - t_j|^2, both ways a block of rows at a time."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, neighbors)
        chunks = _row_chunks(tokens, neighbors)
        return torch.cat([_differences(rows, columns, tokens).square().sum(2) for rows, columns in chunks])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        tokens, neighbors = ctx.saved_tensors
        result = torch.zeros_like(tokens)
        for rows, columns, weights, result_rows in _row_chunks(tokens, neighbors, 2 * gradient, result):
            pulls = _differences(rows, columns, tokens).mul_(weights[:, :, None])
            result_rows += pulls.sum(1)
            result.index_add_(0, columns.flatten(), pulls.flatten(0, 1), alpha=-1)
        return result, None


def _row_chunks(tokens: Tensor, neighbors: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows whose differences to their neighbours fit the byte budget."""
    rows_per_chunk = max(1, EDGE_CHUNK_BYTES // max(1, tokens[0].nbytes * neighbors.shape[1]))
    return zip(*(torch.split(part, rows_per_chunk) for part in (tokens, neighbors, *others)), strict=True)


def _differences(rows: Tensor, columns: Tensor, tokens: Tensor) -> Tensor:
    """t_i - t_j, [rows, k, D], for a block of rows i and their neighbours j."""
    return rows[:, None] - functional.embedding(columns, tokens)


def gaussian_affinity(square_distances: Tensor, sigma: float) -> Tensor:
    """Returns A = exp(-d^2 / (2*sigma)), the weight of an edge (note 2*sigma, not 2*sigma^2).

    An infinite distance gives nan: it comes from an infinite token, which must not pass for a distant one.
    """
    check_positive('sigma', sigma)
    return torch.exp(-square_distances / (2 * sigma)) + 0 * square_distances


def lookup_edges(values: Tensor, neighbors: Tensor, columns: Tensor) -> Tensor:
    """Reads the rows of a sparse matrix at given columns, 0 where it has no entry.

    Args:
        values: Entries [M, k].
        neighbors: Their columns [M, k], distinct in a row.
        columns: The columns [M, l] to read.
    """
    matches = neighbors[:, None, :] == columns[:, :, None]
    return (matches * values[:, None, :]).sum(2)


def context_similarity(tokens: Tensor, temperature: float | None = None) -> Tensor:
    """Returns an image's context similarity CS = softmax(F F^T / sqrt(D)), [B, N, N], of its tokens F, [B, N, D].

    Args:
        tokens: Tokens [B, N, D].
        temperature: Divisor in place of sqrt(D), or None.

    Raises:
        ValueError: If ``tokens`` is not [B, N, D].
    """
    check_sequence('tokens', tokens)
    divisor = tokens.shape[2] ** 0.5 if temperature is None else temperature
    return torch.bmm(tokens / divisor, tokens.transpose(1, 2)).softmax(2)
