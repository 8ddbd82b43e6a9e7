"""What others write: the local term as one writes it first, for ``losses.py`` to compare with, and a rival's loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, mse_loss, normalize

NEIGHBORS, SIGMA = 8, 0.5
INTRA, INTER, RANDOM, NUM_RANDOM = 4.0, 0.1, 0.2, 192


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


def manifold_loss(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Fine-grained manifold distillation of Hao et al., NeurIPS 2022 (arXiv:2107.01378), of one pair of layers.

    Three kinds of maps of the cosines of patch tokens are compared by their mean square: of the tokens of an image, of
    the tokens of all images at a place, and of tokens drawn from all of them. Weights and number of drawn tokens are
    those with which the authors train DeiT-Tiny.

    Args:
        student: Tokens [B, N, D].
        teacher: Tokens [B, N, D'] of the same places.
        chosen: Which of the B * N tokens are drawn.

    Returns:
        The weighted sum, a scalar.
    """
    student, teacher = normalize(student, dim=2), normalize(teacher, dim=2)
    intra = mse_loss(student @ student.mT, teacher @ teacher.mT)
    inter = mse_loss(*(tokens @ tokens.mT for tokens in (student.transpose(0, 1), teacher.transpose(0, 1))))
    random = mse_loss(*(tokens @ tokens.T for tokens in (each.flatten(0, 1)[chosen] for each in (student, teacher))))
    return INTRA * intra + INTER * inter + RANDOM * random
