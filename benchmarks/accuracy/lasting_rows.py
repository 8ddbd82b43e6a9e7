"""The notes of `lasting.py`, as rows of runs that differ in their seeds alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from candidates import CANDIDATES, CONTROL
from methods import Weights
from recipes import LASTING
from tables import Notes

SCREENING_SEED = 0


@dataclass(frozen=True)
class Row:
    """The runs of one setting that differ in their seeds alone.

    Attributes:
        epochs: Of the schedule.
        method: Its name.
        weights: Of its terms.
        screened: Whether they are those of the screening.
        notes: Finished runs by seed, with what was measured under ``measures``.
        dropped: Those ended at half time, and not made again.
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
        if note['seed'] in row.notes:
            row.dropped.pop(note['seed'], None)
    return {setting: sorted(found[setting].values(), key=_place) for setting in LASTING if setting in found}


def _place(row: Row) -> tuple[Any, ...]:
    return row.epochs, not row.screened, *_order(row.method), row.weights


def _order(method: str) -> tuple[int, str]:
    names = list(CANDIDATES)
    first = method.split('+')[0].removesuffix(CONTROL)
    return names.index(first) if first in names else len(names), method


def find(rows: Iterable[Row], like: Row, method: str, weights: Weights | None = None) -> Row | None:
    """The row of another method beside a row, with certain weights or any."""
    for row in rows:
        same = (row.epochs, row.screened, row.method) == (like.epochs, like.screened, method)
        if same and weights in (None, row.weights):
            return row
    return None


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
    for method, epochs in sorted(best, key=lambda place: (*_order(place[0]), place[1])):
        found.setdefault(method, {})[epochs] = best[method, epochs][-1]
    return found
