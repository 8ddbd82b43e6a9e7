"""The maps that a loss makes of an image: what each cell is to one of them, side by side for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trg_torchdistill.cli.plot.figures import blank_figure, outline, show_image
from trg_torchdistill.cli.plot.models import Model, teacher_of
from trg_torchdistill.cli.plot.tokens import Tokens
from trg_torchdistill.losses.maps import ImageMaps

if TYPE_CHECKING:
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
    figure = blank_figure(
        PANEL * (len(models) + 1) + 0.8,
        PANEL + 1.2,
        f'{maps.name.capitalize()}: {maps.relation} of one token (row {cell[0]}, column {cell[1]} of {height} x '
        f'{width}) to all tokens of its image',
    )
    panels = figure.subplots(1, len(models) + 1, squeeze=False)[0]
    seen = pixels[image]
    show_image(panels[0], seen)
    outline(panels[0], cell, (seen.shape[0] / height, seen.shape[1] / width))
    panels[0].set_title('image', fontsize=9)
    teacher = teacher_of(models)
    greatest = max(float(row.max()) for row in rows.values())
    for axes, model in zip(panels[1:], models, strict=True):
        axes.imshow(rows[model.label].view(height, width).numpy(), cmap=COLORS, vmin=0, vmax=greatest)
        outline(axes, cell, (1, 1))
        axes.set_title(model.caption, fontsize=9)
        axes.set(xticks=[], yticks=[])
        if teacher is not None and not model.is_teacher:
            difference = float(maps.difference(own[model.label], own[teacher.label]))
            axes.set_xlabel(f'{maps.loss}\nof the image: {difference:.2g}', fontsize=9)
    figure.colorbar(panels[-1].images[0], ax=list(panels), label=maps.scale, shrink=0.8, pad=0.01)
    return figure
