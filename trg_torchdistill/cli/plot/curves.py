"""Training curves, from the ``metrics.jsonl`` that ``trg-torchdistill train`` leaves in the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from trg_torchdistill.cli.plot.figures import PANEL_INCHES, draw_line, finish_epochs, new_figure
from trg_torchdistill.errors import TRGError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History: TypeAlias = Sequence[Mapping[str, Any]]

METRICS = 'metrics.jsonl'
REQUIRED = ('val_top1', 'loss', 'terms')
COLUMNS = 3
INCHES = (PANEL_INCHES[0] * 0.8, PANEL_INCHES[1] * 0.8)


def read_run(folder: Path) -> History:
    """Returns the epochs of a run in their order.

    Raises:
        TRGError: If the folder holds no run, or no finished epoch.
    """
    path = folder / METRICS
    if not path.is_file():
        raise TRGError(
            f'expected {folder} to be the folder of a run, with a {METRICS}, got none there; name what '
            '`trg-torchdistill train` was given as `--run_dir`, or `dst_ckpt` of the YAML without its suffix'
        )
    try:
        history = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines() if line]
    except ValueError as error:
        raise TRGError(f'expected each line of {path} to be JSON, got: {error}; remove the damaged line') from error
    if not history:
        raise TRGError(f'expected {path} to hold a finished epoch, got none yet; wait for the first one')
    for number, line in enumerate(history, 1):
        missing = [name for name in REQUIRED if not isinstance(line, dict) or name not in line]
        if missing:
            raise TRGError(
                f'expected line {number} of {path} to be an epoch of `trg-torchdistill train`, got one without '
                f'{", ".join(missing)}'
            )
    return history


def draw_curves(runs: Mapping[str, History]) -> Figure:
    """Draws a panel for each quantity that any run has; a run has one colour and one dash pattern in all of them."""
    panels = _panels(runs)
    num_columns = min(COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure, all_axes = new_figure(num_rows, num_columns, (INCHES[0] * num_columns, INCHES[1] * num_rows + 0.5))
    handles: dict[str, Any] = {}
    for axes, (label, lines) in zip(all_axes, panels.items(), strict=False):
        for position, (run, values) in enumerate(lines.items()):
            for line in values:
                draw_line(axes, line, run, position)
                handles.setdefault(run, axes.lines[-1])
        finish_epochs(axes, label)
        if label == 'temperature':
            axes.set_ylim(bottom=0)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    figure.legend(
        list(handles.values()), list(handles), loc='outside upper center', ncols=4, frameon=False, handlelength=3.5
    )
    return figure


def _panels(runs: Mapping[str, History]) -> dict[str, dict[str, list[list[float | None]]]]:
    """Returns by axis label and run the lines of each panel that has any, one number an epoch."""
    readers: dict[str, Any] = {
        'validation top-1, %': lambda line: line['val_top1'],
        'training loss': lambda line: line['loss'],
    }
    for name, label in leaf_terms([line for history in runs.values() for line in history]).items():
        readers[f'term: {label}'] = lambda line, name=name: line['terms'].get(name)
    readers['temperature'] = lambda line: line.get('temperature')
    readers['learning rate'] = lambda line: line.get('lr')
    panels = {
        label: {run: _lines([read(line) for line in history]) for run, history in runs.items()}
        for label, read in readers.items()
    }
    return {label: lines for label, lines in panels.items() if any(lines.values())}


def _lines(values: Sequence[Any]) -> list[list[float | None]]:
    """Returns a line for each part of the values: a learning rate a parameter group, a temperature a TRG term."""
    rows = [
        list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for value in values
    ]
    return [list(column) for column in zip_longest(*rows) if any(value is not None for value in column)]


def leaf_terms(history: History) -> dict[str, str]:
    """Returns names in ``terms`` and their labels; one with parts, ``trg`` of ``trg.local``, is left to its parts."""
    names = list(dict.fromkeys(name for line in history for name in line['terms']))
    labels = {}
    for name in names:
        parent, _, part = name.partition('.')
        if part or not any(other.startswith(f'{name}.') for other in names):
            labels[name] = parent if part in ('', parent) else f'{parent} {part}'
    return labels
