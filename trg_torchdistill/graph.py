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

from trg_torchdistill._checks import check_integer, check_matrix, check_positive, check_rows, check_sequence

GPU_CHUNK_BYTES = 2**26  # many small blocks would be bound by their launches
SCORE_CHUNK_BYTES = 2**23  # a block of scores stays in a CPU's cache from product to selection
EDGE_CHUNK_BYTES = 2**20


@torch.no_grad()
def nearest_neighbors(
    tokens: Tensor, num_neighbors: int, *, rows: range | None = None, chunk_bytes: int | None = None
) -> Tensor:
    """Returns the indices [M, k] of each token's Euclidean nearest neighbours, itself excluded, in no order.

    The M x M scores are computed a block of rows at a time, each block of at most ``chunk_bytes``. They have the dtype
    of the tokens: two distances that differ by less than its epsilon times the largest squared distance to the mean may
    swap, which concerns raw float32 tokens in groups more than about 100 apart, not normalised ones.

    Args:
        tokens: Tokens [M, D].
        num_neighbors: Neighbours k, clipped to M - 1.
        rows: The m tokens whose neighbours among all M are returned, [m, k]; None for all.
        chunk_bytes: Memory budget of a block of scores, in bytes; None for one that suits the device.

    Raises:
        TRGError: If an argument has a wrong type; if ``tokens`` is not [M, D] or another argument is out of range.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [5.0]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    check_matrix('tokens', tokens)
    check_integer('num_neighbors', num_neighbors, 1)
    count = len(tokens)
    rows = check_rows(rows, count)
    if chunk_bytes is None:
        chunk_bytes = GPU_CHUNK_BYTES if tokens.is_cuda else SCORE_CHUNK_BYTES
    check_integer('chunk_bytes', chunk_bytes, 1)
    k = min(num_neighbors, count - 1)
    # Distances do not change when all tokens move together; around the origin the Gram form loses the fewest digits.
    centered = tokens - tokens.mean(0)
    square_norms = centered.square().sum(1)
    rows_per_chunk = max(1, chunk_bytes // (count * tokens.element_size()))
    block = centered.new_empty(min(rows_per_chunk, len(rows)), count)
    neighbors = []
    for start in range(rows.start, rows.stop, rows_per_chunk):
        queries = centered[start : min(start + rows_per_chunk, rows.stop)]
        scores = torch.addmm(square_norms, queries, centered.T, alpha=-2, out=block[: len(queries)])
        scores.diagonal(start).fill_(torch.inf)
        neighbors.append(scores.topk(k, dim=1, largest=False, sorted=False).indices)
    return torch.cat(neighbors)


def edge_square_distances(tokens: Tensor, neighbors: Tensor, *, rows: range | None = None) -> Tensor:
    """Returns the squared Euclidean distances [m, k] of the tokens of ``rows`` to their neighbours [m, k] among all M.

    Neither the m x k x D differences nor their gradients are stored. There is no second derivative.

    Args:
        tokens: Tokens [M, D].
        neighbors: Indices [m, k] of their neighbours.
        rows: The m tokens; None for all.
    """
    distances: Tensor = _EdgeSquareDistance.apply(tokens, neighbors, check_rows(rows, len(tokens)).start)
    return distances


class _EdgeSquareDistance(torch.autograd.Function):
    """d_ij = |t_i - t_j|^2, both ways a block of rows at a time."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, neighbors: Tensor, start: int) -> Tensor:
        ctx.save_for_backward(tokens, neighbors)
        ctx.start = start
        chunks = _chunks(tokens[start : start + len(neighbors)], neighbors)
        return torch.cat([_differences(part, columns, tokens).square().sum(2) for part, columns in chunks])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        tokens, neighbors = ctx.saved_tensors
        result = torch.zeros_like(tokens)
        own, own_result = (tensor[ctx.start : ctx.start + len(neighbors)] for tensor in (tokens, result))
        for part, columns, weights, part_result in _chunks(own, neighbors, 2 * gradient, own_result):
            pulls = _differences(part, columns, tokens).mul_(weights[:, :, None])
            part_result += pulls.sum(1)
            result.index_add_(0, columns.flatten(), pulls.flatten(0, 1), alpha=-1)
        return result, None, None


def _chunks(tokens: Tensor, neighbors: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of tokens whose differences to their neighbours fit the byte budget."""
    chunk_bytes = GPU_CHUNK_BYTES if tokens.is_cuda else EDGE_CHUNK_BYTES
    rows_per_chunk = max(1, chunk_bytes // max(1, tokens[0].nbytes * neighbors.shape[1]))
    return zip(*(torch.split(part, rows_per_chunk) for part in (tokens, neighbors, *others)), strict=True)


def _differences(tokens: Tensor, columns: Tensor, others: Tensor) -> Tensor:
    """t_i - t_j, [rows, k, D], for a block of tokens i and their neighbours j."""
    return tokens[:, None] - functional.embedding(columns, others)


def gaussian_affinity(square_distances: Tensor, sigma: float) -> Tensor:
    """Returns A = exp(-d^2 / (2*sigma)), the weight of an edge (note 2*sigma, not 2*sigma^2).

    An infinite distance gives nan: it comes from an infinite token, which must not pass for a distant one.
    """
    check_positive('sigma', sigma)
    return torch.add(torch.exp(square_distances / (-2 * sigma)), square_distances, alpha=0)


def row_divergence(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], num_columns: int | None, *, teacher_first: bool
) -> Tensor:
    """Returns the KL divergence of the softmax of each row of two graphs, [m], with a gradient to the student's.

    The softmax runs over ``num_columns`` columns, those without an edge having logit 0, or, if that is None, over those
    in which either graph has an edge. No row is stored beyond its edges, and there is no second derivative.

    Args:
        student: Affinities [m, k] of the edges and their columns [m, k], distinct in a row.
        teacher: The same of the teacher.
        num_columns: Columns of both graphs, None for those with an edge.
        teacher_first: KL(teacher || student) or KL(student || teacher).
    """
    divergence: Tensor = _RowDivergence.apply(*student, *teacher, num_columns, teacher_first)
    return divergence


class _RowDivergence(torch.autograd.Function):
    """KL(p || q), p and q the softmax of the logits a and b.

    Its gradient to b is q - p, and to a it is p * (a - b - sum(p * (a - b))).
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        student_columns: Tensor,
        teacher: Tensor,
        teacher_columns: Tensor,
        num_columns: int | None,
        teacher_first: bool,
    ) -> Tensor:
        same = student_columns[:, :, None] == teacher_columns[:, None, :]
        is_new = ~same.any(1)
        valid = torch.cat([torch.ones_like(is_new), is_new], 1)
        student_logits = torch.cat([student, (same * student[:, :, None]).sum(1)], 1)
        teacher_logits = torch.cat([(same * teacher[:, None, :]).sum(2), teacher], 1)
        p_logits, q_logits = (teacher_logits, student_logits) if teacher_first else (student_logits, teacher_logits)
        num_others = 0 if num_columns is None else num_columns - valid.sum(1, keepdim=True)
        p_weights, q_weights = (logits.exp() * valid for logits in (p_logits, q_logits))
        p_total = p_weights.sum(1, keepdim=True) + num_others
        excess = (q_weights - p_weights).sum(1, keepdim=True)
        p, log_ratio = p_weights / p_total, p_logits - q_logits
        mean_log_ratio = (p * log_ratio).sum(1, keepdim=True)
        gradient = q_weights / (p_total + excess) - p if teacher_first else p * (log_ratio - mean_log_ratio)
        ctx.save_for_backward(gradient[:, : student.shape[1]])
        return (mean_log_ratio + torch.log1p(excess / p_total))[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (to_student,) = ctx.saved_tensors
        return gradient[:, None] * to_student, None, None, None, None, None


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
