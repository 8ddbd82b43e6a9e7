"""The tables and the picture of *What lasts*: python benchmarks/accuracy/lasting_tables.py.

From the notes of `lasting.py run` and `lasting.py measure`, between the marks of ``docs/results.md``, the gains alone,
and of ``docs/lasting.md``, and ``docs/images/lasting``. The seed of the screening chose what is confirmed, so that it
stands in rows of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from candidates import CONTROL
from lasting_figure import draw_gains
from lasting_rows import SCREENING_SEED, Row, find, gains, rows_of
from methods import describe
from tables import Notes, insert, interval, read_notes, spread

BEGIN, END = '<!-- what lasts: begin -->\n', '<!-- what lasts: end -->\n'
RESULTS = Path(__file__).resolve().parent / 'results'
LINES, MEASURES, WEIGHTS = (RESULTS / f'lasting{name}.jsonl' for name in ('', '_measures', '_weights'))
SHARE = '0.3'
DOCS = Path(__file__).resolve().parents[2] / 'docs'
TASKS = {'digits': 'digits', 'unseen': 'classes not seen'}
GROUPS = ('many', 'medium', 'few')


def epochs_to(accuracies: list[float], wanted: float) -> int | None:
    """Epochs until an accuracy is reached, None where it is not."""
    return next((epoch for epoch, value in enumerate(accuracies, 1) if value >= wanted), None)


def render(notes: Notes, measures: Notes, weights: Notes) -> str:
    """A section for each setting, of accuracies, what else was measured, and how much was compared; and the weights."""
    parts = []
    for setting, rows in rows_of(notes, measures).items():
        teacher = next((line for line in measures if (line['setting'], line['run']) == (setting, 'teacher')), None)
        parts.append('\n\n'.join(part for part in _section(setting, rows, teacher) if part) + '\n')
    return '\n'.join([*parts, f'### Weights\n\n{_weights(weights)}\n'])


def _weights(lines: Notes) -> str:
    """The weights of one share by method and setting, and how many times as hard these pull at a new student."""
    settings = list(dict.fromkeys(line['setting'] for line in lines))
    shown = [['method', *(f'`{setting}`' for setting in settings)], ['---'] * (1 + len(settings))]
    found = {(line['method'], line['setting']): line for line in lines}
    for method in dict.fromkeys(line['method'] for line in lines):
        shown.append([method, *(_shared(found.get((method, setting))) for setting in settings)])
    return _markdown(shown)


def _shared(line: dict[str, Any] | None) -> str:
    if line is None:
        return ''
    weights = line['weights'][SHARE]
    times = (f'{own / start:.1f}' for own, start in zip(weights, line['at_start'][SHARE], strict=True))
    return f'{describe(weights)} ({" and ".join(times)})'


def summarize(notes: Notes) -> str:
    """A table for each setting: top-1 of KD, and what each method adds to it, by the length of the training."""
    return '\n\n'.join(_summary(setting, rows) for setting, rows in rows_of(notes, []).items())


def _summary(setting: str, rows: list[Row]) -> str:
    schedules = sorted({row.epochs for row in rows})
    lines = [[f'`{setting}`', *(f'{epochs} epochs' for epochs in schedules)], ['---'] * (1 + len(schedules))]
    compared = {(row.epochs, row.screened) for row in rows if row.minus(find(rows, row, 'kd'), 'test_top1')}
    by_use = sorted(rows, key=lambda row: ((row.epochs, row.screened) in compared, not row.screened))
    kd = {row.epochs: _top1(row) for row in by_use if row.method == 'kd'}
    lines.append(['kd, top-1', *(kd.get(epochs, '') for epochs in schedules)])
    confirmed = {(row.method, row.epochs) for row in rows if not row.screened and (row.epochs, False) in compared}
    for method, by_epochs in gains(rows).items():
        cells = {epochs: _gain(differences) for epochs, differences in by_epochs.items()}
        for epochs in cells:
            if ('kd', epochs) in confirmed and (method, epochs) not in confirmed:
                cells[epochs] += f', seed {SCREENING_SEED}'
        lines.append([method, *(cells.get(epochs, '') for epochs in schedules)])
    return _markdown(lines)


def _gain(differences: list[float]) -> str:
    """With the number of seeds, where there is an interval."""
    return interval(differences) + (f', {len(differences)} seeds' if len(differences) > 1 else '')


def _section(setting: str, rows: list[Row], teacher: dict[str, Any] | None) -> list[str]:
    confirmed = [row for row in rows if not row.screened]
    parts = [_screening([row for row in rows if row.screened]), _accuracies(confirmed), _compared(rows)]
    return [f'### `{setting}`', *parts, _others(rows, teacher)]


def _screening(rows: list[Row]) -> str:
    """A line a method: top-1 of its best epoch at each of its weights, and the difference to KD."""
    schedules = list(dict.fromkeys(row.epochs for row in rows))
    lines = [['method', *(f'{epochs} epochs, seed {SCREENING_SEED}' for epochs in schedules)]]
    lines.append(['---'] * len(lines[0]))
    for method in dict.fromkeys(row.method for row in rows):
        own = [[row for row in rows if (row.method, row.epochs) == (method, epochs)] for epochs in schedules]
        lines.append([method, *(', '.join(_screened(row, find(rows, row, 'kd')) for row in each) for each in own)])
    return _markdown(lines) if rows else ''


def _screened(row: Row, kd: Row | None) -> str:
    gain = interval(row.minus(kd, 'test_top1'))
    shown = [_top1(row), *([f'({gain})'] if gain else [])]
    return f'{describe(row.weights)}: {" ".join(shown)}'


def _accuracies(rows: list[Row]) -> str:
    columns: dict[str, Callable[[Row], str]] = {
        'top-1, best on val/': _top1,
        'to KD, 95 % interval': lambda row: interval(row.minus(find(rows, row, 'kd'), 'test_top1')),
        'to the control': lambda row: interval(_to_control(rows, row)),
        'top-1, last epoch': lambda row: _spread(row.values('measures', 'last', 'top1')),
        'to KD': lambda row: interval(row.minus(find(rows, row, 'kd'), 'measures', 'last', 'top1')),
        "epochs to KD's final val/": lambda row: _speed(row, find(rows, row, 'kd')),
    }
    return _table(rows, columns)


def _others(rows: list[Row], teacher: dict[str, Any] | None) -> str:
    """Means over the seeds; the teacher is a row, too."""
    paths = {
        'ECE, %': ('last', 'ece'),
        'agreement with the teacher, %': ('last', 'agreement'),
        **{group: ('last', 'groups', group) for group in GROUPS},
        **{f'{shown}, {kind}': ('features', task, kind) for task, shown in TASKS.items() for kind in ('knn', 'linear')},
    }
    columns = {name: _mean_of('measures', *path) for name, path in paths.items()}
    whole = [replace(row, notes={seed: row.notes[seed] for seed in row.values('measures')}, dropped={}) for row in rows]
    whole = [row for row in whole if row.notes]
    if teacher is not None:
        whole = [Row(0, 'teacher', (), False, {0: {'measures': teacher}}), *whole]
    return _table(whole, columns)


def _mean_of(*path: str) -> Callable[[Row], str]:
    def mean(row: Row) -> str:
        values = row.values(*path)
        return f'{statistics.mean(values.values()):.1f}' if values else ''

    return mean


def _table(rows: list[Row], columns: dict[str, Callable[[Row], str]]) -> str:
    """Markdown, without columns that are empty."""
    cells = {name: [show(row) for row in rows] for name, show in columns.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    if not cells:
        return ''
    lines = [['epochs', 'method', 'weights', 'seeds', *cells], ['---'] * (4 + len(cells))]
    for place, row in enumerate(rows):
        seeds = ', '.join(str(seed) for seed in sorted({*row.notes, *row.dropped})) if row.epochs else ''
        named = [str(row.epochs or ''), row.method, describe(row.weights), seeds]
        lines.append([*named, *(column[place] for column in cells.values())])
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _compared(rows: list[Row]) -> str:
    to_kd = [row.minus(find(rows, row, 'kd'), 'test_top1') for row in rows]
    to_control = [_to_control(rows, row) for row in rows]
    made = [differences for differences in (*to_kd, *to_control) if differences]
    if not made:
        return ''
    counted = f'{sum(map(bool, to_kd))} comparisons with KD and {sum(map(bool, to_control))} with a control'
    with_interval = sum(len(differences) > 1 for differences in made)
    return f'By the best epoch: {counted}; {with_interval} have an interval, not corrected for their number.'


def _to_control(rows: list[Row], row: Row) -> list[float]:
    return row.minus(find(rows, row, row.method + CONTROL, row.weights), 'test_top1')


def _speed(row: Row, kd: Row | None) -> str:
    """Mean over the seeds that get there, and how many do if not all."""
    ends = {} if kd is None else {seed: note['val_top1s'][-1] for seed, note in kd.notes.items()}
    needed = [epochs_to(note['val_top1s'], ends[seed]) for seed, note in row.notes.items() if seed in ends]
    reached = [epochs for epochs in needed if epochs is not None]
    if not needed or not reached:
        return 'never' if needed else ''
    return f'{statistics.mean(reached):.1f}' + (f' ({len(reached)} of {len(needed)})' * (len(reached) < len(needed)))


def _spread(values: dict[int, float]) -> str:
    return spread(list(values.values())) if values else ''


def _top1(row: Row) -> str:
    """Of the best epoch; or how far those were behind KD that did not come to their end."""
    behind = ', '.join(f'{note["dropped"]:.1f} behind KD' for note in row.dropped.values())
    parts = [_spread(row.values('test_top1')), f'dropped: {behind}' if behind else '']
    return '; '.join(part for part in parts if part)


def main() -> None:
    """Writes all of them."""
    notes, measures, weights = (read_notes(file) if file.exists() else [] for file in (LINES, MEASURES, WEIGHTS))
    insert(summarize(notes), DOCS / 'results.md', BEGIN, END)
    insert(render(notes, measures, weights), DOCS / 'lasting.md', BEGIN, END)
    panels = {setting: gains(rows) for setting, rows in rows_of(notes, measures).items()}
    draw_gains(panels, DOCS / 'images' / 'lasting')


if __name__ == '__main__':
    main()
