"""The local term as one writes it first, for ``losses.py`` to compare with: M x M matrices, and a gather of edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize

NEIGHBORS, SIGMA = 8, 0.5


def dense_affinity(tokens: Tensor, gram: bool) -> Tensor:
    """The graph as an M x M matrix, distances and selection included."""
    tokens = normalize(tokens)
    if gram:
        norms = tokens.square().sum(1)
        distances = (norms[:, None] + norms - 2 * tokens @ tokens.T).clamp_min(0)
    else:
        distances = torch.cdist(tokens, tokens).square()
    with torch.no_grad():
        others = distances.detach().clone().fill_diagonal_(torch.inf)
        nearest = others.topk(NEIGHBORS, dim=1, largest=False, sorted=False).indices
        mask = torch.zeros_like(others).scatter_(1, nearest, 1)
    return torch.exp(-distances / (2 * SIGMA)) * mask


def dense_local(student: Tensor, teacher: Tensor, gram: bool) -> Tensor:
    """The local term from M x M matrices."""
    with torch.no_grad():
        target = log_softmax(dense_affinity(teacher, gram), 1)
    return kl_div(log_softmax(dense_affinity(student, gram), 1), target, reduction='sum', log_target=True)


def gathered_square_distances(tokens: Tensor, neighbors: Tensor, *, rows: range | None = None) -> Tensor:
    """The edges of all rows as one writes them first: a gather of M x k x D, and autograd."""
    return (tokens[:, None] - tokens[neighbors]).square().sum(2)
