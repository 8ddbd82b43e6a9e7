"""The three losses of TRG, on tokens: where the equations live.

Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. The total loss is

    L = L_logit + alpha * L_inner + beta * L_local + gamma * L_global

with L_inner :func:`contextual_loss`, L_local :func:`local_preserving_loss` and L_global
:func:`global_relationship_loss`. Superscripts S and T stand for student and teacher. No gradient reaches the teacher.
Everything is computed in float32 or wider, also under autocast; half-precision tokens give a float32 loss. The one
exception is yours to make: ``torch.set_float32_matmul_precision('high')`` turns products of float32 matrices into TF32,
and with them the neighbour search. Second derivatives are exact; they hold what a first one computes a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trg_torchdistill._blocks import sum_over_blocks
from trg_torchdistill._checks import (
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


def local_preserving_loss(
    student: Tensor,
    teacher: Tensor,
    num_neighbors: int = 8,
    sigma: float = 0.5,
    *,
    kl_direction: str = 'teacher_student',
    affinity_support: str = 'all',
    normalize_tokens: bool = True,
    reduction: str = 'sum',
    rows: range | None = None,
) -> Tensor:
    r"""Local preserving loss: the KL divergence between the rows of the teacher's and the student's token graph.

    .. math::
        A_{ij} = \exp(-\|T_i - T_j\|^2 / 2\sigma) \text{ if } T_j \in kNN(T_i), \text{ else } 0 \qquad
        L_{local} = \sum_i KL(softmax_j(A^T_{ij}) \,\|\, softmax_j(A^S_{ij}))

    The softmax runs over all M tokens, so a non-neighbour has logit 0 and weight exp(0). Non-neighbours contribute in
    closed form: nothing of size M x M is stored, beyond a block of scores in the neighbour search.

    Args:
        student: Student tokens [M, D_S].
        teacher: Teacher tokens [M, D_T]; row i of both is the same cell of the same image.
        num_neighbors: Neighbours k of a token, clipped to M - 1.
        sigma: Bandwidth of the Gaussian, in squared token distance.
        kl_direction: ``teacher_student`` = KL(T||S), ``student_teacher`` = KL(S||T).
        affinity_support: ``all`` M tokens, or ``neighbors``: the union of both models' neighbours of i.
        normalize_tokens: L2-normalise tokens before the graph.
        reduction: ``sum`` or ``mean`` over the tokens i.
        rows: The tokens i that this process answers for, among all M of the graph; None for all.

    Returns:
        The loss, a scalar.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range or the numbers of tokens differ.

    Note:
        The paper writes the student first for both terms; the default direction is that of Hinton's KD.
        ``normalize_tokens=False`` is the literal formula. A single token has no neighbour: the loss is 0.

    Example:
        >>> teacher = torch.eye(4)
        >>> local_preserving_loss(teacher, teacher).item()
        0.0
    """
    check_matrix('student', student)
    check_matrix('teacher', teacher)
    _check_same('number of tokens', student.shape[0], teacher.shape[0])
    num_neighbors = check_integer('num_neighbors', num_neighbors, 1)
    sigma = check_positive('sigma', sigma)
    check_choice('kl_direction', kl_direction, KL_DIRECTIONS)
    check_choice('affinity_support', affinity_support, AFFINITY_SUPPORTS)
    check_bool('normalize_tokens', normalize_tokens)
    check_choice('reduction', reduction, TOKEN_REDUCTIONS)
    rows = check_rows(rows, len(student))
    student, teacher = _prepare(student, teacher)
    if len(student) == 1:
        return (student * 0).sum()
    with _full_precision(student):
        student_edges, teacher_edges = (
            _edges(normalize(tokens) if normalize_tokens else tokens, num_neighbors, sigma, rows)
            for tokens in (student, teacher)
        )
        num_columns = len(student) if affinity_support == 'all' else None
        pair = (teacher_edges, student_edges) if kl_direction == 'teacher_student' else (student_edges, teacher_edges)
        divergence = row_divergence(*pair, num_columns)
        return divergence.sum() if reduction == 'sum' else divergence.mean()


def global_relationship_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 0.1,
    *,
    reduction: str = 'mean',
    rows: range | None = None,
) -> Tensor:
    r"""Global relationship loss: InfoNCE of each student token against all teacher tokens.

    .. math::
        L_{global} = \sum_i -\log \frac{\exp(sim(T^S_i, T^T_i)/\tau)}{\sum_j \exp(sim(T^S_i, T^T_j)/\tau)},
        \qquad sim = \text{cosine}

    Args:
        student: Student tokens [M, D], projected to the teacher's width; with ``rows`` those alone.
        teacher: Teacher tokens [M, D].
        temperature: tau, > 0.
        reduction: ``mean`` or ``sum`` over the tokens i.
        rows: The tokens i that this process answers for, among all M of the graph; None for all.

    Returns:
        The loss, a scalar between 0 and about log M + 2/tau (for ``mean``).

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range or the shapes differ.

    Note:
        The paper sums over tokens; ``mean`` is the default because a token's value is O(log M) whatever M is.

    Example:
        >>> global_relationship_loss(torch.ones(4, 8), torch.ones(4, 8)).exp().round().item()
        4.0
    """
    check_matrix('student', student)
    check_matrix('teacher', teacher)
    rows = check_rows(rows, len(teacher))
    _check_same('number of tokens', len(student), len(rows))
    _check_same('width', student.shape[1], teacher.shape[1])
    temperature = check_positive('temperature', temperature)
    check_choice('reduction', reduction, TOKEN_REDUCTIONS)
    student, teacher = _prepare(student, teacher)
    with _full_precision(student):
        queries, keys = normalize(student) / temperature, normalize(teacher)
        targets = torch.arange(rows.start, rows.stop, device=keys.device)
        row_bytes = len(keys) * keys.element_size()
        closed_form = _cross_entropy_and_gradient
        loss = sum_over_blocks(_cross_entropy, row_bytes, queries, targets, keys, closed_form=closed_form)
        return loss / len(queries) if reduction == 'mean' else loss


def contextual_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    normalize_tokens: bool = False,
    temperature: float = 0.1,
    reduction: str = 'mean',
) -> Tensor:
    r"""Token-wise contextual loss: the mean squared error between the context similarities of an image.

    .. math::
        L_{inner} = MSE(CS^S, CS^T), \qquad CS = softmax(F F^\top / \sqrt D) \in R^{N \times N}

    Args:
        student: Student tokens [B, N, D_S].
        teacher: Teacher tokens [B, N, D_T]; token i of both is the same cell. The widths may differ.
        normalize_tokens: L2-normalise the tokens F, then divide by ``temperature`` instead of sqrt(D).
        temperature: Divisor with ``normalize_tokens``, > 0.
        reduction: ``mean`` over all entries, or ``batchmean``: the sum over N x N, the mean over B.

    Returns:
        The loss, a scalar.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range or the shapes differ.

    Note:
        One token an image has the context [[1]] for every model: the loss is 0.

    Example:
        >>> contextual_loss(torch.ones(2, 4, 8), torch.ones(2, 4, 16)).item()
        0.0
    """
    check_sequence('student', student)
    check_sequence('teacher', teacher)
    _check_same('batch size', student.shape[0], teacher.shape[0])
    _check_same('number of tokens', student.shape[1], teacher.shape[1])
    check_bool('normalize_tokens', normalize_tokens)
    temperature = check_positive('temperature', temperature)
    check_choice('reduction', reduction, CONTEXT_REDUCTIONS)
    student, teacher = _prepare(student, teacher)
    with _full_precision(student):
        if normalize_tokens:
            student, teacher = normalize(student), normalize(teacher)
        square_error = sum_over_blocks(
            partial(_context_square_error, temperature=temperature if normalize_tokens else None),
            student.shape[1] ** 2 * student.element_size(),
            student,
            teacher,
        )
        return square_error / (student.shape[1] ** 2 * len(student) if reduction == 'mean' else len(student))


def _edges(tokens: Tensor, num_neighbors: int, sigma: float, rows: range) -> Edges:
    """The affinities of the tokens of ``rows`` to their neighbours, and which tokens these are."""
    neighbors = nearest_neighbors(tokens, num_neighbors, rows=rows)
    return gaussian_affinity(edge_square_distances(tokens, neighbors, rows=rows), sigma), neighbors


def _cross_entropy(queries: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
    """Sum over the queries of the cross-entropy of their logits q K^T, with the key of each as its target."""
    return functional.cross_entropy(queries @ keys.T, targets, reduction='sum')


def _cross_entropy_and_gradient(queries: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The same and its gradient to the queries, softmax(q K^T) K less the key of each."""
    log_p = (queries @ keys.T).log_softmax(1)
    value = -log_p.gather(1, targets[:, None]).sum()
    return value, log_p.exp_() @ keys - keys[targets]


def _context_square_error(student: Tensor, teacher: Tensor, temperature: float | None) -> Tensor:
    """Sum over the images of (CS^S - CS^T)^2."""
    student_map, teacher_map = (context_similarity(tokens, temperature) for tokens in (student, teacher))
    return functional.mse_loss(student_map, teacher_map, reduction='sum')


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
