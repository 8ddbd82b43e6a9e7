"""The pictures of ``docs/short.md``: accuracy of each method, and of each change to one, a panel a setting."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import METHODS, Weights, describe
from tables import Ablation, Notes, ablations, finals, sections

from trg_torchdistill.cli.plot.figures import REFERENCE_COLOR, STYLES, new_figure, save_figure

KINDS = {
    'without relations': (REFERENCE_COLOR, 'D'),
    'this package': (STYLES[0][0], 'o'),
    'torchdistill': (STYLES[1][0], 's'),
}
INCHES_A_ROW = 0.3
PANEL_INCHES = 7.5


@dataclass(frozen=True)
class Row:
    """Accuracies of one method, a value a seed.

    Attributes:
        label: As the axis says it.
        method: Whose colour and mark it has.
        values: One or more.
    """

    label: str
    method: str
    values: list[float]


def draw_results(notes: Notes, recipe: str, path: Path) -> bool:
    """Writes ``path`` as PNG and SVG: a mark a seed, a bold one for their mean, lines at KD and KD + TRG.

    Args:
        notes: Lines of finished runs.
        recipe: Whose runs to draw.
        path: Without suffix.

    Returns:
        Whether there was anything to draw.
    """
    panels = {
        setting: [
            Row(name, name, [note['test_top1'] for note in seeds.values()]) for name, seeds in finals(own).items()
        ]
        for (owner, setting), own in sections(notes).items()
        if owner == recipe
    }
    return _draw(panels, 'test top-1, %', path)


def draw_ablations(notes: Notes, recipe: str, path: Path) -> bool:
    """Writes the changes of `ablate` as :func:`draw_results` does, without the epochs, which outdo all else."""
    panels = {}
    for (owner, setting), own in sections(notes).items():
        if owner != recipe:
            continue
        found = ablations(own)
        tuned = {row.method: row.weights for row in found if not row.variant}
        rows = [
            Row(_label(row, tuned[row.method]), row.method, list(row.accuracies.values()))
            for row in found
            if not row.variant.startswith('epochs=')
        ]
        panels[setting] = rows if len(rows) > len(tuned) else []
    return _draw(panels, 'accuracy on val/, %', path)


def _label(row: Ablation, tuned: Weights) -> str:
    words = (row.method, row.variant, '' if row.weights == tuned else f'({describe(row.weights)})')
    return ' '.join(word for word in words if word)


def _draw(panels: dict[str, list[Row]], unit: str, path: Path) -> bool:
    panels = {setting: rows for setting, rows in panels.items() if rows}
    if not panels:
        return False
    figure, all_axes = new_figure(1, len(panels))
    figure.set_size_inches(PANEL_INCHES * len(panels), 1.5 + INCHES_A_ROW * max(map(len, panels.values())))
    for axes, (setting, rows) in zip(all_axes, panels.items(), strict=True):
        _draw_rows(axes, rows)
        axes.set_title(setting)
        axes.set_xlabel(unit)
    handles = {
        name: handle for axes in all_axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=len(handles), frameon=False)
    for suffix in ('.png', '.svg'):
        save_figure(figure, path.with_suffix(suffix), dpi=100)
    return True


def _draw_rows(axes: Any, rows: list[Row]) -> None:
    for place, row in enumerate(rows):
        kind = _kind(row.method)
        color, marker = KINDS[kind]
        axes.plot(row.values, [place] * len(row.values), marker, markersize=4, markerfacecolor='none', color=color)
        axes.plot(statistics.mean(row.values), place, marker, markersize=8, color=color, label=kind)
        if row.label in ('kd', 'kd+trg'):
            axes.axvline(statistics.mean(row.values), color=color, linestyle=':', linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis='x', color='#dddddd', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)


def _kind(name: str) -> str:
    method = METHODS[name]
    return 'torchdistill' if method.peer else 'this package' if method.terms else 'without relations'
