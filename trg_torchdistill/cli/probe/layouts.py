"""Finds out how the outputs of a model's modules are laid out, from what the modules around them do with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

from trg_torchdistill.io import first_tensor

FIRST, LAST = 'channels first', 'channels last'
CHANNELS_FIRST = (
    conv._ConvNd,
    batchnorm._BatchNorm,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
)
MAX_PREFIX_TOKENS = 8


def is_layer_norm(module: nn.Module) -> bool:
    """Whether a module normalises over channels alone; Hugging Face and timm have classes of their own for it."""
    shape = getattr(module, 'normalized_shape', None)
    return isinstance(shape, (tuple, list, torch.Size)) and len(shape) == 1


def is_pooling(module: nn.Module) -> bool:
    """Whether a module pools, by its class's name; pooling between the layers of a container does not count."""
    return 'pool' in type(module).__name__.lower() and 'former' not in type(module).__name__.lower()


class Evidence:
    """Which dimension of each tensor of one forward pass holds the channels.

    Tensors are told apart by identity: a convolution's input is the very tensor that the module before it returned. All
    of them stay alive until the object goes.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._layouts: dict[int, str] = {}
        self._twins: list[tuple[Tensor, Tensor]] = []
        self._normed: set[int] = set()

    def add(self, module: nn.Module, value: object, result: object, is_last_norm: bool) -> None:
        """Notes what one call of a module tells about its input and its output.

        Args:
            module: The module.
            value: Its input.
            result: Its output.
            is_last_norm: Whether a normalisation over channels, if it is one, belongs to no block of the model.
        """
        source, output = first_tensor(value), first_tensor(result)
        tensors = [tensor for tensor in (source, output) if tensor is not None]
        self._kept += tensors
        if isinstance(module, CHANNELS_FIRST):
            self._note(FIRST, tensors)
        elif isinstance(module, nn.Linear):
            self._note(LAST, tensors)
        elif is_layer_norm(module):
            self._note_layer_norm(module, tensors)
            if is_last_norm and output is not None:
                self._normed.add(_storage(output))
        elif source is not None and output is not None and source.shape == output.shape:
            self._twins.append((source, output))

    def settle(self) -> None:
        """Carries layouts over modules that keep the shape of their input, forwards and backwards."""
        for pairs in (self._twins, self._twins[::-1]):
            for source, output in pairs:
                for one, other in ((source, output), (output, source)):
                    if id(one) in self._layouts:
                        self._layouts.setdefault(id(other), self._layouts[id(one)])

    def channels(self, tensor: Tensor) -> str | None:
        """Returns where the channels of a tensor are, None if nothing tells."""
        return self._layouts.get(id(tensor))

    def is_normed(self, tensor: Tensor) -> bool:
        """Whether a tensor is what the last normalisation over channels returned, or a view of it."""
        return _storage(tensor) in self._normed

    def _note(self, layout: str, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.ndim >= 3:
                self._layouts.setdefault(id(tensor), layout)

    def _note_layer_norm(self, module: nn.Module, tensors: list[Tensor]) -> None:
        width = int(module.normalized_shape[0])  # type: ignore[index]
        for tensor in tensors:
            if tensor.ndim == 4 and tensor.shape[1] == width and type(module) is not nn.LayerNorm:
                self._note(FIRST, [tensor])
            elif tensor.shape[-1] == width:
                self._note(LAST, [tensor])


Grid = tuple[int, int]


def cells_of(shape: Sequence[int], channels: str | None, maps: Iterable[Grid]) -> tuple[str | None, Grid | None, int]:
    """Returns (layout of the tokenizer, grid, prefix tokens) for an output; no layout if its cells are not known.

    A map without evidence is square: the side that differs is the channels.

    Args:
        shape: Its shape.
        channels: Where its channels are, None if nothing tells.
        maps: Grids [h, w] of the feature maps before it.
    """
    if len(shape) == 2:
        return 'bd', (1, 1), 0
    if len(shape) == 3 and channels == LAST:
        fit = sequence_grid(shape[1], maps)
        return (None, None, 0) if fit is None else ('bnd', fit[1], fit[0])
    if len(shape) != 4:
        return None, None, 0
    if channels == LAST or (channels is None and shape[1] == shape[2] != shape[3]):
        return 'bhwc', (shape[1], shape[2]), 0
    return 'bchw', (shape[2], shape[3]), 0


def sequence_cells(shape: Sequence[int], length: int) -> tuple[str | None, Grid | None]:
    """Returns (layout of the tokenizer, grid) for an output of a model of texts; no layout if it has no tokens.

    Args:
        shape: Its shape.
        length: Tokens of each sequence, padding included.
    """
    if len(shape) == 2:
        return 'bd', (1, 1)
    return ('bld', (1, length)) if len(shape) == 3 and shape[1] == length else (None, None)


def sequence_grid(length: int, maps: Iterable[Grid]) -> tuple[int, Grid] | None:
    """Returns (prefix tokens, grid) of a sequence, None if it fits no grid.

    The grid is the feature map before it, the patch embedding, that leaves the fewest tokens over; without one, square.

    Args:
        length: Tokens of the sequence, class and register tokens included.
        maps: Grids [h, w] of the feature maps before it.
    """
    fitting = [(length - height * width, (height, width)) for height, width in maps if height * width > 1]
    fitting = [fit for fit in fitting if 0 <= fit[0] <= MAX_PREFIX_TOKENS]
    if fitting:
        return min(fitting, key=lambda fit: fit[0])
    for prefix in range(MAX_PREFIX_TOKENS + 1):
        side = math.isqrt(max(length - prefix, 0))
        if side > 1 and side * side == length - prefix:
            return prefix, (side, side)
    return None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
