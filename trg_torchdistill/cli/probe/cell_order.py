"""Finds modules whose tokens do not stand row by row as their cells do in the image, by changing one cell of it.

Some models keep their tokens in windows, in mask units or along a curve: as many as a grid has, but in another order,
so that the losses would pair the wrong cells. Such a module's output changes most somewhere else than the image did.
Attention and deep convolutions change every token, but the one at the place among the most. An output that changes
evenly, such as that of an attention without its residual sum, may tell nothing, and passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trg_torchdistill.errors import TRGError
from trg_torchdistill.io import TokenOptions, tensor_at

# Places (y, x) in parts of the image. No usual order of a grid from 4 x 4 to 56 x 56, such as windows, dilated windows,
# columns, mirrored rows, Z-order or a Hilbert curve, leaves all three within a cell of where they are in rows.
PLACES = ((0.45, 0.2), (0.8, 0.4), (0.25, 0.8))
HALF_SIDE = 1 / 32
# At the place a map in rows changes by more than this part of its largest change; with 0.75 real ones would be refused.
LEAST_SHARE = 0.5
# Cells by which a side of a map may be shorter than the image tells: no padding, sides that do not divide.
SPARE_CELLS = 2


@torch.no_grad()
def out_of_order(model: nn.Module, layers: Mapping[str, Mapping[str, Any]], image_shape: tuple[int, ...]) -> set[str]:
    """Returns the module paths whose tokens are not in the rows of the image.

    Args:
        model: A model in eval mode; it is called once.
        layers: For each module path, the options that cut its output into cells.
        image_shape: Shape [C, H, W] of an image.

    Returns:
        Of ``layers``, those whose grid has another shape than the image, and those that change in the wrong place.
    """
    found: set[str] = set()

    def compare(path: str, module: nn.Module, value: Any, result: Any) -> None:
        options = TokenOptions(**layers[path])
        tensor = tensor_at(result, options.key)
        if tensor is None or len(tensor) != 1 + len(PLACES):
            return
        try:
            grids = options(tensor).float()
        except TRGError:
            return  # it has another number of tokens for other images
        changes = (grids[1:] - grids[:1]).norm(dim=1)
        if not (_fits(changes.shape[1:], image_shape) and all(map(_is_in_place, changes, PLACES))):
            found.add(path)

    handles = [model.get_submodule(path).register_forward_hook(partial(compare, path)) for path in layers]
    try:
        if layers:
            model(changed_images(image_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found


def changed_images(image_shape: tuple[int, ...]) -> Tensor:
    """Returns a random image [C, H, W], and after it the same image changed at each place."""
    images = torch.rand(image_shape).repeat(1 + len(PLACES), 1, 1, 1)
    for image, place in zip(images[1:], PLACES, strict=True):
        rows, columns = _around(place, image.shape[1:])
        image[:, rows, columns] += 1
    return images


def _fits(grid: tuple[int, ...], image_shape: tuple[int, ...]) -> bool:
    """Whether a grid has the shape of the image."""
    (height, width), (image_height, image_width) = grid, image_shape[1:]
    scale = max(height / image_height, width / image_width)
    return max(scale * image_height - height, scale * image_width - width) <= SPARE_CELLS


def _is_in_place(change: Tensor, place: tuple[float, float]) -> bool:
    """Whether a map [h, w] of changes is among its largest within a cell of a place."""
    rows, columns = _around(place, change.shape, reach=1)
    return not bool(change[rows, columns].max() < LEAST_SHARE * change.max())


def _around(place: tuple[float, float], sides: tuple[int, ...], reach: int = 0) -> tuple[slice, slice]:
    """Returns the rows and columns of the cells at a place, and those within ``reach`` cells of them."""
    rows, columns = (
        slice(max(0, math.floor((part - HALF_SIDE) * side) - reach), math.ceil((part + HALF_SIDE) * side) + reach)
        for part, side in zip(place, sides, strict=True)
    )
    return rows, columns
