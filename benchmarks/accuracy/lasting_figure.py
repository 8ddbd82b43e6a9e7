"""The picture of *What lasts*: gain over KD against the length of the training, a panel a setting."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from recipes import LASTING
from tables import half_width

from trg_torchdistill.cli.plot.figures import REFERENCE_COLOR, STYLES, new_figure, save_figure

Gains = dict[str, dict[int, list[float]]]
SPREAD = 1.04  # between the marks of two methods


def draw_gains(panels: dict[str, Gains], path: Path) -> bool:
    """Writes ``path`` as PNG and SVG: means of paired differences, with their 95 % interval from two seeds on.

    Args:
        panels: By setting, method and epochs, the differences to KD. A method with one schedule has no line.
        path: Without suffix.

    Returns:
        Whether there was anything to draw.
    """
    panels = {
        setting: {method: by_epochs for method, by_epochs in gains.items() if len(by_epochs) > 1}
        for setting, gains in panels.items()
    }
    panels = {setting: gains for setting, gains in panels.items() if gains}
    if not panels:
        return False
    methods = list(dict.fromkeys(method for gains in panels.values() for method in gains))
    figure, all_axes = new_figure(1, len(panels))
    for axes, (setting, gains) in zip(all_axes, panels.items(), strict=True):
        axes.sharey(all_axes[0])
        _draw_panel(axes, gains, methods)
        pair = LASTING[setting].pair
        axes.set_title(f'{setting}: {pair.teacher.key} to {pair.student.key}')
    all_axes[0].set_ylabel('test top-1 beyond KD, points')
    handles = {
        name: handle for axes in all_axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc='outside lower center', ncols=min(len(handles), 6), frameon=False
    )
    for suffix in ('.png', '.svg'):
        save_figure(figure, path.with_suffix(suffix), dpi=100)
    return True


def _draw_panel(axes: Any, gains: Gains, methods: list[str]) -> None:
    for method, by_epochs in gains.items():
        place = methods.index(method)
        rounds, style = divmod(place, len(STYLES))
        epochs = sorted(by_epochs)
        axes.errorbar(
            [each * SPREAD ** (place - len(methods) / 2) for each in epochs],
            [statistics.mean(by_epochs[each]) for each in epochs],
            [half_width(by_epochs[each]) if len(by_epochs[each]) > 1 else 0.0 for each in epochs],
            color=STYLES[style][0],
            linestyle=STYLES[(style + rounds) % len(STYLES)][1],
            marker='o',
            markersize=4,
            capsize=3,
            label=method,
        )
    ticks = sorted({epochs for by_epochs in gains.values() for epochs in by_epochs})
    axes.axhline(0, color=REFERENCE_COLOR, linewidth=1)
    axes.set_xscale('log')
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel('epochs of training')
    axes.grid(axis='y', color='#dddddd', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
