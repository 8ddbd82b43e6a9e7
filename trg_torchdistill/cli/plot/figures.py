"""Figures and their styles, and curves of finished epochs from ``metrics.jsonl``. Needs matplotlib; no window opens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History: TypeAlias = Sequence[Mapping[str, Any]]

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


def read_history(path: Path) -> list[dict[str, Any]]:
    """Returns the epochs of a ``metrics.jsonl``, in their order.

    Raises:
        TRGError: If a line is no JSON.
    """
    lines = path.read_text(encoding='utf-8').splitlines()
    return [json.loads(line) for line in lines if line]


def blank_figure(width: float, height: float) -> Figure:
    """Returns a figure without panels, in inches.

    Raises:
        TRGError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TRGError(
            "expected matplotlib to be installed, got none; run: pip install 'trg_torchdistill[cli]'"
        ) from error
    return Figure(figsize=(width, height), layout='constrained')


def new_figure(num_rows: int, num_columns: int) -> tuple[Figure, list[Axes]]:
    """Returns an empty figure and its panels, row by row.

    Raises:
        TRGError: If matplotlib is missing.
    """
    figure = blank_figure(PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows)
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


def style_of(position: int) -> tuple[str, Any]:
    """Returns the colour and the dashes of a line; more lines than ``STYLES`` combine them in other ways."""
    rounds = position // len(STYLES)
    return STYLES[position % len(STYLES)][0], STYLES[(position + rounds) % len(STYLES)][1]


def draw_accuracy(
    axes: Axes,
    histories: Mapping[str, History],
    reference: tuple[str, float] | None = None,
    first_style: int = 0,
) -> None:
    """Draws the validation top-1 of each run, in percent.

    Args:
        axes: Panel to draw on.
        histories: Epochs of each run, by the label of its line.
        reference: Label and accuracy of a horizontal line, the teacher for instance.
        first_style: Position in ``STYLES`` of the first run, so that a method looks the same in two panels.
    """
    if reference is not None:
        axes.axhline(reference[1], color=REFERENCE_COLOR, linestyle=':', linewidth=1.2, label=reference[0])
    series = {label: [line['val_top1'] for line in history] for label, history in histories.items()}
    _draw_lines(axes, series, 'validation top-1, %', first_style)


def draw_terms(axes: Axes, history: History) -> None:
    """Draws the mean of each term of the loss, before its weight, over its mean in the first epoch.

    The terms differ by orders of magnitude, hence the ratio; the label of a line gives the first mean.
    """
    series = {}
    for name, label in leaf_terms(history).items():
        values = [line['terms'].get(name) for line in history]
        first = next((value for value in values if value), None)
        if first is not None:
            ratios = [None if value is None else value / first for value in values]
            series[f'{label} (from {first:.3g})'] = ratios
    _draw_lines(axes, series, 'mean of the term / first epoch')


def draw_temperature(axes: Axes, history: History) -> None:
    """Draws the temperature of the global term; one line for each TRG term if they differ."""
    series: dict[str, list[float | None]] = {}
    for line in history:
        value = line.get('temperature')
        for name in value if isinstance(value, dict) else ['temperature']:
            series.setdefault(name, [])
    for name, values in series.items():
        for line in history:
            value = line.get('temperature')
            values.append(value.get(name) if isinstance(value, dict) else value)
    _draw_lines(axes, series, 'temperature of the global term')
    axes.set_ylim(bottom=0)


def draw_line(axes: Axes, values: Sequence[float | None], label: str, position: int) -> None:
    """Draws one value an epoch, None leaving a gap, in the style of a position."""
    color, dashes = style_of(position)
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


def _draw_lines(axes: Axes, series: Mapping[str, Sequence[float | None]], label: str, first_style: int = 0) -> None:
    for position, (name, values) in enumerate(series.items(), first_style):
        draw_line(axes, values, name, position)
    finish_epochs(axes, label)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize='small')


def leaf_terms(history: History) -> dict[str, str]:
    """Returns names in ``terms`` and their labels; one with parts, ``trg`` of ``trg.local``, is left to its parts."""
    names = list(dict.fromkeys(name for line in history for name in line['terms']))
    labels = {}
    for name in names:
        parent, _, part = name.partition('.')
        if part or not any(other.startswith(f'{name}.') for other in names):
            labels[name] = parent if part in ('', parent) else f'{parent} {part}'
    return labels
