"""The tokens of all processes in one graph: what ``gather: true`` of ``TRGLoss`` needs from ``torch.distributed``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional


def world_size() -> int:
    """Returns the number of processes that train together, 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@dataclass(frozen=True)
class Share:
    """Which of the M tokens of all processes are this one's; the tokens stand in the order of the ranks.

    Attributes:
        counts: Number of tokens of each process.
        rank: This process.
    """

    counts: tuple[int, ...]
    rank: int = 0

    @classmethod
    def of(cls, tokens: Tensor) -> Share:
        """Returns the share of a process with these tokens [m, D]; m may differ between the processes, and be 0."""
        if world_size() == 1:
            return cls((len(tokens),))
        counts = torch.zeros(world_size(), dtype=torch.int64, device=tokens.device)
        counts[dist.get_rank()] = len(tokens)
        dist.all_reduce(counts)
        return cls(tuple(counts.tolist()), dist.get_rank())

    @property
    def rows(self) -> range:
        """This process's tokens among all M."""
        start = sum(self.counts[: self.rank])
        return range(start, start + self.counts[self.rank])

    def gather(self, tokens: Tensor) -> Tensor:
        """Returns the tokens [M, D] of all processes, with a gradient to this one's if they want one.

        They are gathered in float32 or wider: in half precision, the sum of the gradients would lose digits.
        """
        if len(self.counts) == 1 or sum(self.counts) == 0:
            return tokens
        gathered: Tensor = _Gather.apply(tokens.to(torch.promote_types(tokens.dtype, torch.float32)), self)
        return gathered

    def scaled(self, loss: Tensor, reduction: str) -> Tensor:
        """Returns a loss over this process's rows, scaled for ``DistributedDataParallel``.

        That takes the mean of the processes' gradients; so it is the gradient of the ``sum`` or ``mean`` over all M
        rows.
        """
        if len(self.counts) == 1:
            return loss
        share_of_mean = 1 if reduction == 'sum' else len(self.rows) / max(1, sum(self.counts))
        return loss * (len(self.counts) * share_of_mean)


class _Gather(torch.autograd.Function):
    """All processes' tokens; its gradient is the sum of what all processes' losses want of this one's tokens."""

    @staticmethod
    def forward(tokens: Tensor, share: Share) -> Tensor:
        padded = functional.pad(tokens, (0, 0, 0, max(share.counts) - len(tokens)))
        parts = [torch.empty_like(padded) for _ in share.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, share.counts, strict=True)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Share], output: Tensor) -> None:
        ctx.share = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _SumOfShares.apply(gradient, ctx.share), None


class _SumOfShares(torch.autograd.Function):
    """The sum of all processes' [M, D], of which each keeps its own rows; its gradient is those of all, gathered."""

    @staticmethod
    def forward(tokens: Tensor, share: Share) -> Tensor:
        total = tokens.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[share.rows.start : share.rows.stop]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Share], output: Tensor) -> None:
        ctx.share = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.share), None
