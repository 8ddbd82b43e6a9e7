"""The token-wise contextual loss, L_inner: how the tokens of one image stand to each other. Within an image, no graph.

Shapes: B images of N tokens with D features.
"""

from __future__ import annotations

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
    check_mask,
    check_positive,
    check_same,
    check_sequence,
    set_checked,
)
from trg_torchdistill.tokens import in_full_precision, normalize, without_autocast

CONTEXT_REDUCTIONS = ('mean', 'batchmean')


def context_similarity(tokens: Tensor, temperature: float | None = None, mask: Tensor | None = None) -> Tensor:
    """Returns an image's context similarity CS = softmax(F F^T / sqrt(D)), [B, N, N], of its tokens F, [B, N, D].

    Args:
        tokens: Tokens [B, N, D].
        temperature: Divisor in place of sqrt(D), or None.
        mask: Which tokens [B, N] count, the others being finite; their rows and columns are 0. None for all.

    Raises:
        TRGError: If ``tokens`` is not [B, N, D].
    """
    check_sequence('tokens', tokens)
    divisor = tokens.shape[2] ** 0.5 if temperature is None else temperature
    logits = torch.bmm(tokens, tokens.transpose(1, 2)).div_(divisor)
    if mask is None:
        return logits.softmax(2)
    rows, columns = mask[:, :, None], mask[:, None]
    # A row that does not count keeps its columns until it is 0: without any, its softmax would be nan.
    return logits.masked_fill(rows & ~columns, -torch.inf).softmax(2).masked_fill(~rows, 0)


@dataclass(frozen=True)
class ContextualTerm:
    r"""Token-wise contextual loss: the mean squared error between the context similarities of an image.

    .. math::
        L_{inner} = MSE(CS^S, CS^T), \qquad CS = \mathrm{softmax}(F F^\top / \sqrt D) \in R^{N \times N}

    Args:
        normalize_tokens: L2-normalise the tokens F, then divide by ``temperature`` instead of sqrt(D).
        temperature: Divisor with ``normalize_tokens``, > 0.
        reduction: ``mean`` over all entries, or ``batchmean``: the sum over N x N, the mean over B. With a mask, the
            entries are the pairs of tokens that count.

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
        set_checked(self, temperature=check_positive('temperature', self.temperature))
        check_choice('reduction', self.reduction, CONTEXT_REDUCTIONS)

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            student: Student tokens [B, N, D_S].
            teacher: Teacher tokens [B, N, D_T]; token i of both is the same cell. The widths may differ.
            mask: Which tokens [B, N] count, bool; None for all. The others are in no row and no column of a context,
                whatever their values; an image without any that counts adds 0.

        Raises:
            TRGError: If the tokens are no sequences of floats with equal numbers of images and tokens; if the mask is
                no bool tensor of these.
        """
        check_sequence('student', student)
        check_sequence('teacher', teacher)
        check_same('batch size', len(student), len(teacher))
        check_same('number of tokens', student.shape[1], teacher.shape[1])
        student, teacher = in_full_precision(student, teacher)
        num_images, num_tokens, _ = student.shape
        rows: tuple[Tensor, ...] = (student, teacher)
        num_pairs: int | Tensor = num_tokens**2 * num_images
        if mask is not None:
            check_mask(mask, (num_images, num_tokens))
            rows = (student, teacher, mask)
            num_pairs = mask.sum(1).square().sum().clamp(min=1)
        with without_autocast(student):
            row_bytes = num_tokens**2 * student.element_size()
            square_error = sum_over_blocks(self._square_error, row_bytes, rows)
            return square_error / (num_pairs if self.reduction == 'mean' else num_images)

    def context(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the context similarity [B, N, N] of the tokens [B, N, D] of each image, 0 for those masked out."""
        if mask is not None:
            tokens = tokens.masked_fill(~mask[:, :, None], 0)
        if self.normalize_tokens:
            return context_similarity(normalize(tokens), self.temperature, mask)
        return context_similarity(tokens, None, mask)

    def _square_error(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return functional.mse_loss(self.context(student, mask), self.context(teacher, mask), reduction='sum')


def contextual_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Returns :class:`ContextualTerm` with these options, of tokens [B, N, D_S] and [B, N, D_T] of the same images."""
    return build(ContextualTerm, 'contextual_loss', options)(student, teacher, mask)
