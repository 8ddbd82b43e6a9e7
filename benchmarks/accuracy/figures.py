"""The picture of ``docs/results.md``: accuracy of each method, a panel a setting."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from methods import METHODS

from trg_torchdistill.cli.plots import REFERENCE_COLOR, STYLES, new_figure, save_figure

KINDS = {
    'without relations': (REFERENCE_COLOR, 'D'),
    'this package': (STYLES[0][0], 'o'),
    'torchdistill': (STYLES[1][0], 's'),
}
INCHES_A_ROW = 0.3


def draw_results(notes: list[dict[str, Any]], recipe: str, path: Path) -> bool:
    """Writes ``path`` as PNG and SVG: a mark a seed, a bold one for their mean, and a line at the mean of KD.

    Args:
        notes: Lines of finished runs.
        recipe: Whose runs to draw.
        path: Without suffix.

    Returns:
        Whether there was anything to draw.
    """
    notes = [note for note in notes if (note['stage'], note['recipe']) == ('run', recipe)]
    settings = list(dict.fromkeys(note['setting'] for note in notes))
    if not settings:
        return False
    figure, panels = new_figure(1, len(settings))
    figure.set_figheight(1.5 + INCHES_A_ROW * len({note['method'] for note in notes}))
    for axes, setting in zip(panels, settings, strict=True):
        _draw_setting(axes, setting, [note for note in notes if note['setting'] == setting])
    for suffix in ('.png', '.svg'):
        save_figure(figure, path.with_suffix(suffix), dpi=100)
    return True


def _draw_setting(axes: Any, setting: str, notes: list[dict[str, Any]]) -> None:
    by_seed = {name: {n['seed']: n['test_top1'] for n in notes if n['method'] == name} for name in METHODS}
    values = {name: list(found.values()) for name, found in by_seed.items() if found}
    labelled: set[str] = set()
    for row, (name, found) in enumerate(values.items()):
        kind = _kind(name)
        color, marker = KINDS[kind]
        label = None if kind in labelled else kind
        labelled.add(kind)
        axes.plot(found, [row] * len(found), marker, markersize=4, markerfacecolor='none', color=color)
        axes.plot(statistics.mean(found), row, marker, markersize=8, color=color, label=label)
    if 'kd' in values:
        axes.axvline(statistics.mean(values['kd']), color=REFERENCE_COLOR, linestyle=':', linewidth=1.2)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set_xlabel('test top-1, %')
    axes.set_title(setting)
    axes.grid(axis='x', color='#dddddd', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize='small')


def _kind(name: str) -> str:
    method = METHODS[name]
    return 'torchdistill' if method.peer else 'this package' if method.terms else 'without relations'
