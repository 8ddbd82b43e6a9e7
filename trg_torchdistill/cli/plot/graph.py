"""The token graph over images: from one token to its nearest neighbours in other images, a row for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trg_torchdistill.cli.plot.figures import CHOSEN, STYLES, blank_figure, outline, show_image
from trg_torchdistill.cli.plot.images import Images
from trg_torchdistill.cli.plot.models import Model, teacher_of
from trg_torchdistill.cli.plot.tokens import Neighbor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 1.25
BEND = 0.12
SHARED, OTHER = STYLES[5][0], STYLES[1][0]
DASHES = (0, (3, 1.5))


def draw_graph(
    graphs: Mapping[str, Sequence[Neighbor]],
    shares: Mapping[str, float],
    models: Sequence[Model],
    images: Images,
    pixels: Tensor,
    chosen: tuple[int, int, int],
    grid: tuple[int, int],
) -> Figure:
    """Draws a row of images for each model, with the edges of one token.

    Args:
        graphs: Neighbours of the token by label of the model.
        shares: By label of the students, the share of the teacher's edges that they have, over all tokens.
        models: The models, in the order of the rows.
        images: The images.
        pixels: The images as they are seen, of :func:`~trg_torchdistill.cli.plot.images.as_seen`.
        chosen: Image, row and column of the token.
        grid: Cells [h, w] of an image.

    Raises:
        TRGError: If matplotlib is missing.
    """
    teacher = teacher_of(models)
    reference = None if teacher is None else {neighbor.place for neighbor in graphs[teacher.label]}
    number = len(next(iter(graphs.values())))
    figure = blank_figure(
        PANEL * len(pixels) + 2.2,
        (PANEL + 0.2) * len(models) + 1.0,
        f'Token graph: one token (row {chosen[1]}, column {chosen[2]} of {grid[0]} x {grid[1]}) and its {number} '
        'nearest neighbours in other images',
    )
    panels = figure.subplots(len(models), len(pixels), squeeze=False)
    for axes, label in zip(panels[0], images.labels, strict=True):
        axes.set_title(f'class {images.names[label]}', fontsize=9)
    for model, row in zip(models, panels, strict=True):
        neighbors = graphs[model.label]
        for axes, seen in zip(row, pixels, strict=True):
            _show_cells(axes, seen, grid)
        caption = model.caption
        if reference is not None and not model.is_teacher:
            count = len(reference & {neighbor.place for neighbor in neighbors})
            caption += f'\n{count} of {number} as the teacher\n({shares[model.label]:.0%} over all tokens)'
        row[0].set_ylabel(caption, rotation=0, ha='right', va='center', labelpad=8, fontsize=9)
        _draw_edges(figure, row, neighbors, reference, chosen, grid, pixels.shape[1:3])
    figure.legend(
        handles=_legend(reference is not None), loc='outside lower center', ncols=4, frameon=False, fontsize=9
    )
    return figure


def _show_cells(axes: Axes, pixels: Tensor, grid: tuple[int, int]) -> None:
    height, width = pixels.shape[:2]
    show_image(axes, pixels)
    axes.set_xticks([column * width / grid[1] - 0.5 for column in range(1, grid[1])], [])
    axes.set_yticks([row * height / grid[0] - 0.5 for row in range(1, grid[0])], [])
    axes.tick_params(length=0)
    axes.grid(color='#888888', linewidth=0.3, alpha=0.6)


def _draw_edges(
    figure: Figure,
    row: Sequence[Axes],
    neighbors: Sequence[Neighbor],
    reference: set[tuple[int, int, int]] | None,
    chosen: tuple[int, int, int],
    grid: tuple[int, int],
    size: Sequence[int],
) -> None:
    from matplotlib.patches import ConnectionPatch

    cell = (size[0] / grid[0], size[1] / grid[1])
    outline(row[chosen[0]], chosen[1:], cell)
    side = -1 if 2 * chosen[1] >= grid[0] else 1  # upwards from the lower half of an image, else downwards
    for neighbor in neighbors:
        is_shared = reference is None or neighbor.place in reference
        color, dashes = (SHARED, '-') if is_shared else (OTHER, DASHES)
        place = (neighbor.row, neighbor.column)
        outline(row[neighbor.image], place, cell, color)
        edge = ConnectionPatch(
            _center(chosen[1:], cell),
            _center(place, cell),
            'data',
            axesA=row[chosen[0]],
            axesB=row[neighbor.image],
            color=color,
            linestyle=dashes,
            linewidth=0.6 + 1.4 * neighbor.affinity,
            connectionstyle=f'arc3,rad={BEND * side * (1 if neighbor.image > chosen[0] else -1)}',
            shrinkB=3,
        )
        edge.set_in_layout(False)
        figure.add_artist(edge)


def _center(place: tuple[int, int], cell: tuple[float, float]) -> tuple[float, float]:
    """Middle of a cell, x and y in pixels."""
    return (place[1] + 0.5) * cell[1] - 0.5, (place[0] + 0.5) * cell[0] - 0.5


def _legend(has_teacher: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines: list[tuple[str, Any, str]] = [(SHARED, '-', 'neighbour')]
    if has_teacher:
        lines = [
            (SHARED, '-', 'also a neighbour for the teacher'),
            (OTHER, DASHES, 'not a neighbour for the teacher'),
        ]
    return [
        Patch(fill=False, edgecolor=CHOSEN, linewidth=2, label='the token'),
        *(Line2D([], [], color=color, linestyle=dashes, linewidth=2, label=text) for color, dashes, text in lines),
        Line2D([], [], linestyle='', label='thicker: larger affinity'),
    ]
