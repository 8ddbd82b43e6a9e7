"""Writes the tables of ``docs/performance.md`` from the files in ``results``; it takes no arguments.

A table stands between the lines ``<!-- table: FILE -->`` and ``<!-- table: end -->``; FILE is below ``results``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from _timing import MIB

FOLDER = Path(__file__).resolve().parent
DOCUMENT = FOLDER.parent / 'docs' / 'performance.md'
MARKED = re.compile(r'(<!-- table: (\S+\.json) -->\n).*?(<!-- table: end -->)', re.DOTALL)
Row = dict[str, Any]


def write_tables(document: Path = DOCUMENT) -> None:
    """Replaces what stands between the marks of a document."""
    text = document.read_text(encoding='utf-8')
    document.write_text(MARKED.sub(lambda found: found[1] + render(found[2]) + found[3], text), encoding='utf-8')


def render(name: str) -> str:
    """The command of a file of results, where it ran, and its tables."""
    result = json.loads((FOLDER / 'results' / name).read_text(encoding='utf-8'))
    rows, machine = result['rows'], result['machine']
    before, after = result['load_before_and_after']
    facts = [result['date'][:16].replace('T', ' ') + ' UTC']
    facts += [machine['cpu'] if machine['device'] == 'cpu' else machine['device'], f'torch {machine["torch"]}']
    facts += [f'{machine["threads"]} thread{"s" * (machine["threads"] > 1)}', f'{result["clock"]} clock']
    facts += [f'{rows[0]["rounds"]} rounds'] if 'rounds' in rows[0] else []
    caption = f'`{result["command"]}`, {", ".join(facts)}, load {before:.1f} before and {after:.1f} after.'
    if 'term' in rows[0]:
        tables = [_memory(rows)]
    elif 'pair' in rows[0]['size']:
        tables = [_methods(row) for row in rows]
    else:
        parts: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            parts.setdefault((row['reference'], *row['peers']), []).append(row)
        tables = [_peers(own) for own in parts.values()]
    return '\n'.join([f'{caption}\n', *tables])


def _peers(rows: list[Row]) -> str:
    """A line for each size: the time of the reference, and the ratio of each peer to it."""
    reference, sizes = rows[0]['reference'], [key for key in rows[0]['size'] if key not in ('part', 'k')]
    others = [name for name in rows[0]['peers'] if name != reference]
    lines = [[*sizes, f'{reference}, ms', *(f'{name} / {reference}' for name in others), 'bar']]
    for row in rows:
        ratios = [_ratio(row['peers'][name]) for name in others]
        bars = [f'{bar["limit"]:g} {"met" if bar["met"] else "missed"}' for bar in row.get('bars', [])]
        cells = [str(row['size'][key]) for key in sizes]
        lines.append([*cells, _milliseconds(row['peers'][reference]), *ratios, '; '.join(bars)])
    return _table(lines)


def _methods(row: Row) -> str:
    """A line for each method of a step."""
    growth, extra = row.get('growth_bytes') or {}, row['extra_parameters']
    lines = [['method', 'step, ms', 'to plain KD', 'extra parameters', *(['peak of a step, MiB'] if growth else [])]]
    for name, peer in row['peers'].items():
        memory = [f'{growth[name] / MIB:,.0f}'] if growth else []
        lines.append([name, _milliseconds(peer), _ratio(peer), f'{extra[name]:,}', *memory])
    return _table(lines)


def _memory(rows: list[Row]) -> str:
    """A line for each number of tokens, a column for each term."""
    found = [dict(zip(row['M'], row['growth_bytes'], strict=True)) for row in rows]
    lines = [['M', *(row['term'] for row in rows)]]
    for count in rows[0]['M']:
        lines.append([str(count), *(f'{own[count] / MIB:.1f}' if count in own else '' for own in found)])
    for key in ('exponent_of_growth', 'exponent_of_increments'):
        lines.append([key.replace('_', ' '), *(f'{row[key]:.2f}' if key in row else '' for row in rows)])
    return _table(lines)


def _milliseconds(peer: Row) -> str:
    return '{median:.4g} ({q1:.4g}-{q3:.4g})'.format(**{k: 1000 * v for k, v in peer['seconds'].items()})


def _ratio(peer: Row) -> str:
    return '{median:.2f} ({q1:.2f}-{q3:.2f})'.format(**peer['ratio'])


def _table(lines: list[list[str]]) -> str:
    header, *rest = lines
    return '\n'.join(f'| {" | ".join(line)} |' for line in [header, ['---'] * len(header), *rest]) + '\n'


if __name__ == '__main__':
    write_tables()
