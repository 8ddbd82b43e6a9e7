"""Context maps: how much each cell of an image resembles one of them, side by side for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trg_torchdistill.cli.plot.figures import blank_figure, outline, show_image
from trg_torchdistill.cli.plot.models import Model, teacher_of
from trg_torchdistill.cli.plot.tokens import Tokens, context_error, context_row
from trg_torchdistill.losses import TokenContextualLoss

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
    loss: TokenContextualLoss,
) -> Figure:
    """Draws an image, and for each model the context similarity of one of its cells to all of them.

    Args:
        tokens: Tokens of each model.
        models: The models, in the order of the panels.
        pixels: The images as they are seen.
        image: Which of them.
        cell: Row and column.
        loss: Says how the similarity is computed.

    Raises:
        TRGError: If matplotlib is missing.
    """
    height, width = tokens.grid
    own = {label: values[image] for label, values in tokens.values.items()}
    rows = {label: context_row(values, cell[0] * width + cell[1], loss) for label, values in own.items()}
    figure = blank_figure(
        PANEL * (len(models) + 1) + 0.8,
        PANEL + 1.2,
        f'Context map: similarity of one token (row {cell[0]}, column {cell[1]} of {height} x {width}) to all '
        'tokens of its image',
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
            error = context_error(own[model.label], own[teacher.label], loss)
            axes.set_xlabel(f'contextual loss\nof the image: {error:.2g}', fontsize=9)
    figure.colorbar(panels[-1].images[0], ax=list(panels), label='softmax over the image', shrink=0.8, pad=0.01)
    return figure
