"""The tables of ``docs/short.md`` from the notes of finished runs."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations import VARIANTS
from methods import METHODS, Weights, describe
from scipy import stats

BEGIN, END = '<!-- tables: begin -->\n', '<!-- tables: end -->\n'
# A run of `tune` is the unchanged one of its seed, and not made again.
ABLATION_STAGES = ('ablate', 'tune')
Notes = list[dict[str, Any]]


@dataclass(frozen=True)
class Ablation:
    """A method with one change, or, under an empty name, with none.

    Attributes:
        method: The method that is changed.
        variant: Name of the change.
        weights: Weights of the method's terms.
        accuracies: Accuracy on val/ by seed.
    """

    method: str
    variant: str
    weights: Weights
    accuracies: dict[int, float]


def read_notes(lines: Path) -> Notes:
    """The notes of finished runs, in the order of their end."""
    return [json.loads(line) for line in lines.read_text(encoding='utf-8').splitlines()]


def write_note(lines: Path, note: dict[str, Any]) -> None:
    """Adds a line."""
    with lines.open('a', encoding='utf-8') as stream:
        stream.write(json.dumps(note) + '\n')


def write_tables(notes: Notes, document: Path) -> None:
    """Replaces the tables of a document."""
    insert(render(notes), document, BEGIN, END)


def insert(shown: str, document: Path, begin: str, end: str) -> None:
    """Replaces what stands between two marks of a document.

    Raises:
        ValueError: If the document has no marks.
    """
    text = document.read_text(encoding='utf-8')
    if begin not in text or end not in text:
        raise ValueError(f'expected {document} to hold the lines {begin.strip()} and {end.strip()}')
    before, after = text.split(begin)[0], text.split(end)[1]
    document.write_text(f'{before}{begin}\n{shown}\n{end}{after}', encoding='utf-8')


def render(notes: Notes) -> str:
    """One section for each recipe and setting: accuracies, the weights that were tried, and the ablations."""
    parts = []
    for (recipe, setting), own in sections(notes).items():
        shown = [f'### {setting}, recipe `{recipe}`', _accuracies(own), _tuning(own), _ablations(own)]
        parts.append('\n\n'.join(part for part in shown if part) + '\n')
    return '\n'.join(parts)


def sections(notes: Notes) -> dict[tuple[str, str], Notes]:
    """The notes of students by recipe and setting."""
    names = sorted({(note['recipe'], note['setting']) for note in notes if note['stage'] != 'teacher'})
    return {name: [note for note in notes if (note['recipe'], note['setting']) == name] for name in names}


def finals(notes: Notes) -> dict[str, dict[int, dict[str, Any]]]:
    """What `run` noted in one recipe and setting, by method and seed; no method without a note."""
    runs = [note for note in notes if note['stage'] == 'run']
    found = {name: {note['seed']: note for note in runs if note['method'] == name} for name in METHODS}
    return {name: seeds for name, seeds in found.items() if seeds}


def _accuracies(notes: Notes) -> str:
    by_method = finals(notes)
    if not by_method:
        return ''
    accuracies = {name: {s: n['test_top1'] for s, n in seeds.items()} for name, seeds in by_method.items()}
    grouped = any(note.get('groups') for seeds in by_method.values() for note in seeds.values())
    groups = ('many', 'medium', 'few') if grouped else ()
    header = ['method', 'weights', 'seeds', 'top-1, %', 'to KD, 95 % interval', 'to KD + TRG, 95 % interval', *groups]
    rows = [header, ['---'] * len(header)]
    for name, seeds in by_method.items():
        values = accuracies[name]
        means = [f'{statistics.mean(note["groups"][group] for note in seeds.values()):.1f}' for group in groups]
        weights = sorted({describe(note['weights']) for note in seeds.values()})
        compared = ['' if name == other else _paired(values, accuracies.get(other, {})) for other in ('kd', 'kd+trg')]
        rows.append([name, ', '.join(weights), str(len(values)), spread(list(values.values())), *compared, *means])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _tuning(notes: Notes) -> str:
    rows = ['| method | accuracy on val/ by weights |', '|---|---|']
    for name in METHODS:
        tried = [note for note in notes if note['stage'] == 'tune' and note['method'] == name]
        if tried:
            cells = (f'{describe(note["weights"])}: {note["val_top1"]:.1f}' for note in tried)
            rows.append(f'| {name} | {", ".join(cells)} |')
    return '\n'.join(rows) if len(rows) > 2 else ''


def _ablations(notes: Notes) -> str:
    """Accuracy on val/ of each variant, beside the same seed without the change, and of KD with the same change."""
    found = ablations(notes)
    if not found:
        return ''
    header = ['method', 'change', 'weights', 'seeds', 'accuracy on val/']
    header += ['to no change, 95 % interval', 'to KD, 95 % interval']
    rows = [header, ['---'] * len(header)]
    plain = {row.method: row.accuracies for row in found if not row.variant}
    kd = {row.variant: row.accuracies for row in found if row.method == 'kd'}
    for row in found:
        values = row.accuracies
        to_plain = _paired(values, plain[row.method]) if row.variant else ''
        to_kd = _paired(values, kd.get(row.variant, kd[''])) if row.method != 'kd' else ''
        shown = [describe(row.weights), str(len(values)), spread(list(values.values()))]
        rows.append([row.method, row.variant or 'none', *shown, to_plain, to_kd])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def ablations(notes: Notes) -> list[Ablation]:
    """What `ablate` found in one recipe and setting, method by method, each method first without a change."""
    changed = {note['method'] for note in notes if note['variant']}
    order = {'': -1} | {variant.name: place for place, variant in enumerate(VARIANTS)}
    found = []
    for method in [name for name in METHODS if changed and name in {'kd', *changed}]:
        rows = _by_variant(notes, method)
        names = sorted(rows, key=lambda row: (order.get(row[0], len(order)), row))
        found += [Ablation(method, *name, rows[name]) for name in names]
    return found


def _by_variant(notes: Notes, method: str) -> dict[tuple[str, Weights], dict[int, float]]:
    """Accuracy on val/ by seed, by variant and weights; under the empty name that of the tuned method."""
    tuned = METHODS[method].best(METHODS[method].tuned(notes))
    found: dict[tuple[str, Weights], dict[int, float]] = {('', tuned): {}}
    for note in notes:
        weights = tuple(note['weights'])
        is_own = note['stage'] in ABLATION_STAGES and note['method'] == method
        if is_own and (note['variant'] or weights == tuned):
            found.setdefault((note['variant'], weights), {})[note['seed']] = note['val_top1']
    return found


def _paired(values: dict[int, float], others: dict[int, float]) -> str:
    return interval([value - others[seed] for seed, value in values.items() if seed in others])


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.2f}{deviation}'


def interval(differences: list[float]) -> str:
    """Mean of paired differences and its 95 % confidence interval by Student's t."""
    if not differences:
        return ''
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f'{mean:+.2f}'
    half = half_width(differences)
    return f'{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})'


def half_width(differences: list[float]) -> float:
    """Half of the 95 % confidence interval of two or more paired differences."""
    count = len(differences)
    return float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(differences) / count**0.5
