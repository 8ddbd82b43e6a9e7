"""The teacher tokens of earlier batches, against which the global term compares those of this one too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TokenQueue(nn.Module):
    """The last ``size`` teacher tokens, first in, first out.

    They are a buffer of the loss, saved with the state of a run; the student's checkpoint has nothing of them.

    Attributes:
        tokens: The tokens [at most size, D], None before the first batch.
    """

    tokens: Tensor | None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer('tokens', None)

    def push(self, tokens: Tensor) -> None:
        """Takes the tokens [M, D] of a batch in, and as many of the oldest out as are too many."""
        newest = tokens.detach()[-self.size :]
        if self.tokens is not None:
            room = self.size - len(newest)
            kept = self.tokens[max(len(self.tokens) - room, 0) :].to(newest.device)
            newest = torch.cat([kept, newest])
        self.tokens = newest.clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes the last saved tokens, however many there are, and none of a state from before the first batch."""
        saved = state_dict.get(f'{prefix}tokens')
        self.tokens = None if saved is None else saved[-self.size :]
