"""The tables and the picture of *What lasts*: python benchmarks/accuracy/lasting_tables.py.

From the notes of `lasting.py run` and `lasting.py measure` into ``docs/results.md``, between its two marks, and
``docs/images/lasting``. The seed of the screening chose what is confirmed, so that it stands in rows of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from candidates import CANDIDATES, CONTROL
from lasting_figure import draw_gains
from methods import Weights, describe
from recipes import LASTING
from tables import Notes, insert, interval, read_notes, spread

BEGIN, END = '<!-- what lasts: begin -->\n', '<!-- what lasts: end -->\n'
SCREENING_SEED = 0
RESULTS = Path(__file__).resolve().parent / 'results'
LINES, MEASURES = RESULTS / 'lasting.jsonl', RESULTS / 'lasting_measures.jsonl'
DOCUMENT = Path(__file__).resolve().parents[2] / 'docs' / 'results.md'
TASKS = {'digits': 'digits', 'unseen': 'classes not seen'}
GROUPS = ('many', 'medium', 'few')


@dataclass(frozen=True)
class Row:
    """The runs of one setting that differ in their seeds alone.

    Attributes:
        epochs: Of the schedule.
        method: Its name.
        weights: Of its terms.
        screened: Whether they are those of the screening.
        notes: Finished runs by seed, with what was measured under ``measures``.
        dropped: Those ended at half time.
    """

    epochs: int
    method: str
    weights: Weights
    screened: bool
    notes: dict[int, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[int, dict[str, Any]] = field(default_factory=dict)

    def values(self, *path: str) -> dict[int, float]:
        """By seed, what stands in the notes under a path of names, of those that have it."""
        found = {}
        for seed, value in self.notes.items():
            for name in path:
                value = (value or {}).get(name)
            if value is not None:
                found[seed] = value
        return found

    def minus(self, other: Row | None, *path: str) -> list[float]:
        """Differences to the same seeds of another row."""
        others = {} if other is None or other is self else other.values(*path)
        return [value - others[seed] for seed, value in self.values(*path).items() if seed in others]


def rows_of(notes: Notes, measures: Notes) -> dict[str, list[Row]]:
    """The rows of each setting: by epochs, the screening first, KD first."""
    measured = {(line['setting'], line['run']): line for line in measures}
    found: dict[str, dict[Any, Row]] = {}
    for note in notes:
        if note['stage'] != 'run':
            continue
        epochs, screened = int(note['variant'].removeprefix('epochs=')), note['seed'] == SCREENING_SEED
        key = (epochs, note['method'], tuple(note['weights']), screened)
        row = found.setdefault(note['setting'], {}).setdefault(key, Row(*key))
        own = row.dropped if 'dropped' in note else row.notes
        own[note['seed']] = {**note, 'measures': measured.get((note['setting'], note['run']))}
    return {setting: sorted(found[setting].values(), key=_place) for setting in LASTING if setting in found}


def _place(row: Row) -> tuple[Any, ...]:
    names = list(CANDIDATES)
    first = row.method.split('+')[0].removesuffix(CONTROL)
    return row.epochs, not row.screened, names.index(first) if first in names else len(names), row.method, row.weights


def find(rows: Iterable[Row], like: Row, method: str, weights: Weights | None = None) -> Row | None:
    """The row of another method beside a row, with certain weights or any."""
    for row in rows:
        same = (row.epochs, row.screened, row.method) == (like.epochs, like.screened, method)
        if same and weights in (None, row.weights):
            return row
    return None


def epochs_to(accuracies: list[float], wanted: float) -> int | None:
    """Epochs until an accuracy is reached, None where it is not."""
    return next((epoch for epoch, value in enumerate(accuracies, 1) if value >= wanted), None)


def render(notes: Notes, measures: Notes) -> str:
    """A section for each setting: accuracies, what else was measured, and how much was compared."""
    parts = []
    for setting, rows in rows_of(notes, measures).items():
        teacher = next((line for line in measures if (line['setting'], line['run']) == (setting, 'teacher')), None)
        parts.append('\n\n'.join(part for part in _section(setting, rows, teacher) if part) + '\n')
    return '\n'.join(parts)


def _section(setting: str, rows: list[Row], teacher: dict[str, Any] | None) -> list[str]:
    confirmed = [row for row in rows if not row.screened]
    parts = [_screening([row for row in rows if row.screened]), _accuracies(confirmed), _compared(rows)]
    return [f'### `{setting}`', *parts, _others(confirmed or rows, teacher)]


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
        "epochs to KD's last val/": lambda row: _speed(row, find(rows, row, 'kd')),
    }
    return _table(rows, columns)


def _others(rows: list[Row], teacher: dict[str, Any] | None) -> str:
    """Means over the seeds; the teacher is a row, too."""
    paths = {
        'ECE, %': ('last', 'ece'),
        "the teacher's answer, %": ('last', 'agreement'),
        **{group: ('last', 'groups', group) for group in GROUPS},
        **{f'{shown}, {kind}': ('features', task, kind) for task, shown in TASKS.items() for kind in ('knn', 'linear')},
    }
    columns = {name: _mean_of('measures', *path) for name, path in paths.items()}
    whole = [row for row in rows if row.values('measures')]
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
    counted = f'{sum(map(bool, to_kd))} to KD and {sum(map(bool, to_control))} to a control'
    with_interval = sum(len(differences) > 1 for differences in made)
    return (
        f'Compared by the best epoch: {counted}, {with_interval} of them with an interval, which is not corrected for '
        'their number.'
    )


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


def gains(rows: list[Row]) -> dict[str, dict[int, list[float]]]:
    """Differences to KD by method and epochs: of confirmed runs where there are any, at the weights best on val/."""
    best: dict[tuple[str, int], tuple[bool, float, list[float]]] = {}
    for row in rows:
        differences = row.minus(find(rows, row, 'kd'), 'test_top1')
        if differences:
            rank = (not row.screened, statistics.mean(row.values('val_top1').values()), differences)
            place = (row.method, row.epochs)
            best[place] = max(rank, best.get(place, rank), key=lambda each: each[:2])
    found: dict[str, dict[int, list[float]]] = {}
    for (method, epochs), (*_, differences) in best.items():
        found.setdefault(method, {})[epochs] = differences
    return found


def main() -> None:
    """Writes both."""
    notes, measures = (read_notes(file) if file.exists() else [] for file in (LINES, MEASURES))
    insert(render(notes, measures), DOCUMENT, BEGIN, END)
    panels = {setting: gains(rows) for setting, rows in rows_of(notes, measures).items()}
    draw_gains(panels, DOCUMENT.parent / 'images' / 'lasting')


if __name__ == '__main__':
    main()
