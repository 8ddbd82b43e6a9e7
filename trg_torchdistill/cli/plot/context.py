"""The maps that a loss makes of an image: what each cell is to one of them, side by side for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trg_torchdistill.cli.plot.figures import CHOSEN, blank_figure
from trg_torchdistill.cli.plot.models import Model
from trg_torchdistill.cli.plot.tokens import Tokens
from trg_torchdistill.losses.maps import ImageMaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 2.2
COLORS = 'viridis'


def draw_context(
    tokens: Tokens,
    models: Sequence[Model],
    pixels: Tensor,
    image: int,
    cell: tuple[int, int],
    maps: ImageMaps,
) -> Figure:
    """Draws an image, and for each model the row of its map that belongs to one of its cells.

    Args:
        tokens: Tokens of each model.
        models: The models, in the order of the panels.
        pixels: The images as they are seen.
        image: Which of them.
        cell: Row and column.
        maps: Says how the maps are made, and what they are called.

    Raises:
        TRGError: If matplotlib is missing.
    """
    height, width = tokens.grid
    own = {label: values[image, None] for label, values in tokens.values.items()}
    rows = {label: maps.of(values)[0, cell[0] * width + cell[1]] for label, values in own.items()}
    figure = blank_figure(PANEL * (len(models) + 1) + 0.8, PANEL + 1.2)
    panels = figure.subplots(1, len(models) + 1, squeeze=False)[0]
    figure.suptitle(
        f'{maps.name.capitalize()}: {maps.relation} of one token (row {cell[0]}, column {cell[1]} of {height} x '
        f'{width}) to all tokens of its image',
        fontsize=11,
    )
    seen = pixels[image]
    panels[0].imshow(seen.numpy(), cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    _finish(panels[0], 'image', (seen.shape[0] / height, seen.shape[1] / width), cell)
    teacher = next((model.label for model in models if model.is_teacher), None)
    greatest = max(float(row.max()) for row in rows.values())
    for axes, model in zip(panels[1:], models, strict=True):
        axes.imshow(rows[model.label].view(height, width).numpy(), cmap=COLORS, vmin=0, vmax=greatest)
        title = f'{model.label}\n({model.key})'
        _finish(axes, title, (1, 1), cell)
        if teacher is not None and not model.is_teacher:
            difference = float(maps.difference(own[model.label], own[teacher]))
            axes.set_xlabel(f'{maps.loss}\nof the image: {difference:.2g}', fontsize=9)
    figure.colorbar(panels[-1].images[0], ax=list(panels), label=maps.scale, shrink=0.8, pad=0.01)
    return figure


def _finish(axes: Axes, title: str, cell_size: tuple[float, float], cell: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    corner = (cell[1] * cell_size[1] - 0.5, cell[0] * cell_size[0] - 0.5)
    axes.add_patch(Rectangle(corner, cell_size[1], cell_size[0], fill=False, edgecolor=CHOSEN, linewidth=2))
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
