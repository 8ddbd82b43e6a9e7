"""Brings the attention mask of a batch to the losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trg_torchdistill._checks import check_counts, check_integer
from trg_torchdistill.errors import TRGError


class TextMask(nn.Module):
    """A module whose output says which tokens of each text take part in the losses.

    torchdistill's trainers of text call ``model(**batch)``, and a hook does not see keyword arguments.
    ``Student4TRG`` calls this module with them, so that a hook at its path ``token_mask`` has them.

    Args:
        special_ids: Identifiers of tokens that begin, part and end a text, ``[CLS]`` and ``[SEP]``: they do not take
            part. They stand in every text, at the same place and with nearly the same state, so they would be
            each other's neighbours, whatever the texts say. Empty: all tokens that are no padding take part.

    Raises:
        TRGError: If it is no list of integers >= 0.

    Example:
        >>> TextMask([101, 102])(torch.tensor([[1, 1, 1, 0]]), torch.tensor([[101, 7592, 102, 0]]))
        tensor([[False,  True, False, False]])

    YAML::

        student:
          auxiliary_model_wrapper:
            key: 'Student4TRG'
            kwargs:
              token_mask: {special_ids: [101, 102]}
          forward_hook: {input: [], output: ['student_model.bert.encoder.layer.11', 'token_mask']}
    """

    def __init__(self, special_ids: Sequence[int] = ()) -> None:
        super().__init__()
        if not isinstance(special_ids, Sequence) or isinstance(special_ids, str):
            raise TRGError(f'expected `special_ids` to be a list of integers, got {special_ids!r}')
        self.special_ids = [check_integer('special_ids', number, 0) for number in special_ids]

    def extra_repr(self) -> str:
        """Returns what the log shows of it."""
        return f'special_ids={self.special_ids}'

    def forward(self, attention_mask: Tensor | None, input_ids: Tensor | None) -> Tensor:
        """Returns which tokens [B, L] take part, bool.

        Args:
            attention_mask: 1 for a token and 0 for padding [B, L], None where nothing is padded.
            input_ids: The tokens [B, L]; None is enough without ``special_ids``.

        Raises:
            TRGError: If the batch has neither, or lacks the one that is needed, or they have another rank.
        """
        given = attention_mask if input_ids is None else input_ids
        shapes = [list(each.shape) for each in (input_ids, attention_mask) if each is not None]
        if given is None or given.ndim != 2 or shapes[0] != shapes[-1] or (self.special_ids and input_ids is None):
            found = ' and '.join(f'shape {shape}' for shape in shapes) or 'none'
            raise TRGError(
                'expected a batch with `input_ids` and `attention_mask` [B, L] for `token_mask` of `Student4TRG`, got '
                f"{found}; call the student with the batch as keywords, `forward_proc: 'forward_batch_as_kwargs'`, or "
                'remove `token_mask:`'
            )
        counts = torch.ones_like(given, dtype=torch.bool)
        if attention_mask is not None:
            counts = check_counts('the `attention_mask` of the batch', attention_mask)
        for number in self.special_ids if input_ids is not None else ():
            counts = counts & (input_ids != number)
        return counts
