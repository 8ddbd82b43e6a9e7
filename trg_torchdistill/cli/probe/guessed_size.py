"""Says what hangs on a size of the images that is a guess: how many tokens the layers have at other sizes."""

from __future__ import annotations

from collections.abc import Sequence

from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.probe import ModelProbe, run_model
from trg_torchdistill.errors import TRGError

OTHER_SIZES = (32, 64, 224)

Layers = Sequence[tuple[ModelProbe, Sequence[str]]]


def guess_warning(size: ImageSize, layers: Layers) -> str | None:
    """Returns a warning about a guessed size, None where nothing hangs on it.

    Args:
        size: Size of the images.
        layers: Each model with the module paths whose outputs become tokens.
    """
    if not size.is_guess:
        return None
    here = _smallest_grid(layers)
    others = {
        other: _smallest_grid(tried)
        for other in OTHER_SIZES
        if (other, other) != (size.height, size.width) and (tried := _at_size(layers, other)) is not None
    }
    changed = [f'{_shown(grid)} at {other} x {other}' for other, grid in others.items() if grid not in (None, here)]
    if here is None or not changed:
        return None
    return (
        f'the images are taken to be {size}, a guess: the YAML does not tell their size. The smallest of the hooked '
        f'maps has {_shown(here)} an image then, {" and ".join(changed)}, and with one token a relation between the '
        'tokens of an image is 0. If your images have another size, give it with `--input-size`'
    )


def _at_size(layers: Layers, side: int) -> Layers | None:
    """Returns the layers with what the models do at another size, None if a model refuses it."""
    try:
        return [(run_model(probe.key, probe.model, (side, side)), paths) for probe, paths in layers]
    except TRGError:
        return None


def _smallest_grid(layers: Layers) -> tuple[int, int] | None:
    records = [probe.record(path) for probe, paths in layers for path in paths]
    grids = [record.grid for record in records if record is not None and record.grid is not None]
    return min(grids, key=lambda grid: grid[0] * grid[1], default=None)


def _shown(grid: tuple[int, int]) -> str:
    return '1 token' if grid == (1, 1) else f'{grid[0]}x{grid[1]} tokens'
