"""Figures and what they have in common: lines over epochs, cells of an image, a legend. No window opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow: distinct under the common colour-vision deficiencies. Each colour has its
# own dash pattern, so that the lines stay apart in grey.
STYLES: tuple[tuple[str, Any], ...] = (
    ('#0072B2', '-'),
    ('#D55E00', (0, (6, 2))),
    ('#009E73', (0, (1, 1))),
    ('#CC79A7', (0, (6, 2, 1, 2))),
    ('#E69F00', (0, (3, 1))),
    ('#56B4E9', (0, (3, 1, 1, 1, 1, 1))),
)
REFERENCE_COLOR = '#555555'
CHOSEN = STYLES[3][0]
PANEL_INCHES = (5.0, 3.6)


def new_figure(
    num_rows: int, num_columns: int, inches: tuple[float, float] | None = None, title: str = ''
) -> tuple[Figure, list[Axes]]:
    """Returns an empty figure and its panels, row by row; without ``inches`` of the whole they are ``PANEL_INCHES``.

    Raises:
        TRGError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TRGError(
            "expected matplotlib to be installed, got none; run: pip install 'trg_torchdistill[cli]'"
        ) from error
    size = inches or (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows)
    figure = Figure(figsize=size, layout='constrained')
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False).flat)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure in the format of the path's suffix, whole or not at all; the same figure gives the same bytes.

    Raises:
        RunError: If the file cannot be written.
    """
    from matplotlib import rc_context

    metadata = {'Date': None} if path.suffix == '.svg' else None
    with rc_context({'svg.hashsalt': 'trg_torchdistill'}), replacing(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=dpi, metadata=metadata)


def draw_line(axes: Axes, values: Sequence[float | None], label: str, position: int) -> None:
    """Draws one value an epoch, None leaving a gap, in the style of a position.

    More lines than ``STYLES`` combine their colours and dashes in other ways.
    """
    rounds, place = divmod(position, len(STYLES))
    color, dashes = STYLES[place][0], STYLES[(place + rounds) % len(STYLES)][1]
    points = [float('nan') if value is None else value for value in values]
    marker = 'o' if len(points) == 1 else None
    epochs = range(1, len(points) + 1)
    axes.plot(epochs, points, color=color, linestyle=dashes, linewidth=1.8, marker=marker, label=label)


def finish_epochs(axes: Axes, label: str) -> None:
    """Names the axes of a panel over epochs and gives it a light grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel('epoch')
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)


def show_image(axes: Axes, pixels: Tensor) -> None:
    """Shows an image [H, W, 3] or [H, W] without ticks."""
    axes.imshow(pixels.numpy(), cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    axes.set(xticks=[], yticks=[])


def outline(axes: Axes, place: tuple[int, int], cell: tuple[float, float], color: str = CHOSEN) -> None:
    """Draws the edges of the cell at a row and a column; ``cell`` is the height and width of one in pixels."""
    from matplotlib.patches import Rectangle

    corner = (place[1] * cell[1] - 0.5, place[0] * cell[0] - 0.5)
    axes.add_patch(Rectangle(corner, cell[1], cell[0], fill=False, edgecolor=color, linewidth=2))
