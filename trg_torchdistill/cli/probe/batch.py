"""A random batch of any task, as a model takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE = 2


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of a model.

    Attributes:
        shape: Shape [B, C, H, W] of the images, or [B, L] of the sequences of tokens.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    shape: tuple[int, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether it holds sequences of tokens, not images."""
        return len(self.shape) == 2

    def run(self, model: nn.Module) -> Any:
        """Calls a model with the batch."""
        return model(*self.args, **self.kwargs)


def image_batch(model: nn.Module, image_size: tuple[int, int]) -> Batch:
    """Returns random images with as many channels as the first convolution of a model takes."""
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    shape = (BATCH_SIZE, 3 if conv is None else conv.in_channels * conv.groups, *image_size)
    return Batch(shape, (torch.rand(shape),))


def smooth_image(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """Returns a random image [C, H, W] of some shape, between 0 and 1."""
    coarse = torch.rand(1, shape[0], 4, 4, generator=generator)
    smooth = functional.interpolate(coarse, tuple(shape[1:]), mode='bicubic', align_corners=False)[0]
    return (smooth + 0.1 * torch.randn(*shape, generator=generator)).clamp(0, 1)
