"""The generated parts of results: true to the committed lines, and right on made-up ones."""

import importlib
import json

import pytest

from trg_torchdistill.cli.plot.figures import STYLES


@pytest.fixture(scope='module')
def tables(grid):
    return importlib.import_module('lasting_tables')


def note(method, seed, top1, epochs=4, weights=(2.8,), **more):
    run = f'{method}-{seed}-{epochs}'
    more = {'test_top1': top1, 'val_top1': top1, 'val_top1s': [10.0, 20.0, top1 - 9, top1], 'groups': None} | more
    common = {'stage': 'run', 'recipe': 'vit', 'setting': 'vit', 'variant': f'epochs={epochs}', 'run': run}
    return common | {'method': method, 'seed': seed, 'weights': list(weights), **more}


NOTES = [
    note('kd', 0, 50.0, weights=(0.1, 4)),
    note('soft', 0, 53.0),
    note('literal', 0, 0.0, weights=(1, 2), dropped=4.5),
    note('at', 0, 0.0, weights=(5,), dropped=3.5),
    note('at', 0, 52.0, weights=(5,)),
    *(note('kd', seed, 50.0 + seed, weights=(0.1, 4)) for seed in (1, 2, 3)),
    *(note('soft', seed, top1) for seed, top1 in ((1, 52.0), (2, 54.0), (3, 65.0))),
    *(note('soft_others', seed, 51.0 + seed) for seed in (1, 2)),
    note('kd', 1, 60.0, 8, (0.1, 4)),
    note('soft', 1, 59.5, 8),
]
for place in (2, 3):
    del NOTES[place]['test_top1']
MEASURES = [
    {
        'setting': 'vit',
        'run': run,
        'last': {'top1': top1, 'ece': 4.25, 'agreement': 70.0, 'groups': {'many': 80.0}},
        'features': {'digits': {'knn': 60.0, 'linear': 91.25}},
    }
    for run, top1 in (('teacher', 88.0), ('kd-1-4', 50.5), ('soft-1-4', 51.5))
]


def test_the_tables_of_made_up_runs(tables):
    weights = [{'setting': 'vit', 'method': 'literal', 'weights': {'0.3': [0.5, 6]}, 'at_start': {'0.3': [0.1, 1.5]}}]
    text = tables.render(NOTES, MEASURES, weights)
    lines = text.splitlines()
    assert lines[0] == '### `vit`'
    assert '| soft | 2.8: 53.00 (+3.00) |' in lines
    assert '| literal | 1/2: dropped: 4.5 behind KD |' in lines
    assert '| at | 5: 52.00 (+2.00) |' in lines  # made again
    # Differences 1, 2, 12 to KD: mean 5, t of 2 degrees 4.3027, standard error sqrt(37 / 3). 65 - 9 is above KD's 53.
    row = next(line for line in lines if line.startswith('| 4 | soft | 2.8 | 1, 2, 3 |'))
    cells = '57.00 ± 7.00 | +5.00 (-10.11 to +20.11) | +0.50 (-5.85 to +6.85) | 51.50 | +1.00 | 3.7 |'
    assert row.endswith(cells)
    assert '| 4 | kd | 0.1/4 | 1, 2, 3 | 52.00 ± 1.00 |  |  | 50.50 |  | 4.0 |' in lines
    assert '| 8 | soft | 2.8 | 1 | 59.50 | -0.50 |  |  |  | never |' in lines
    assert '5 comparisons with KD and 1 with a control; 3 have an interval' in text
    assert '|  | teacher | - |  | 4.2 | 70.0 | 80.0 | 60.0 | 91.2 |' in lines
    assert lines[-1] == '| literal | 0.5/6 (5.0 and 4.0) |'
    assert not any('unseen' in line or 'few' in line for line in lines)


def test_the_summary_has_the_gains_alone(tables):
    assert tables.summarize(NOTES).splitlines() == [
        '| `vit` | 4 epochs | 8 epochs |',
        '| --- | --- | --- |',
        '| kd, top-1 | 52.00 ± 1.00 | 60.00 |',
        '| soft | +5.00 (-10.11 to +20.11), 3 seeds | -0.50 |',
        '| soft_others | +1.00 (+1.00 to +1.00), 2 seeds |  |',
        '| at | +2.00, seed 0 |  |',
    ]


def test_the_picture_has_a_line_for_what_ran_at_two_schedules(tables, tmp_path):
    rows = tables.rows_of(NOTES, [])['vit']
    gains = tables.gains(rows)
    assert gains == {'at': {4: [2]}, 'soft': {4: [1, 2, 12], 8: [-0.5]}, 'soft_others': {4: [1, 1]}}
    assert tables.draw_gains({'vit': gains}, tmp_path / 'lasting')
    svg = (tmp_path / 'lasting.svg').read_text()
    assert '<!-- soft -->' in svg
    assert '<!-- soft_others -->' not in svg
    assert STYLES[0][0].lower() in svg.lower()
    assert (tmp_path / 'lasting.png').stat().st_size > 0
    assert not tables.draw_gains({'vit': {'soft': {4: [1.0]}}}, tmp_path / 'none')


def test_the_tables_of_the_document_are_those_of_the_committed_lines(tables, grid):
    files = (tables.LINES, tables.MEASURES, tables.WEIGHTS)
    notes, measures, weights = (tables.read_notes(file) if file.exists() else [] for file in files)
    made = {'results.md': tables.summarize(notes), 'lasting.md': tables.render(notes, measures, weights)}
    for page in made:
        shown = (tables.DOCS / page).read_text().split(tables.BEGIN)[1].split(tables.END)[0]
        assert shown == f'\n{made[page]}\n', 'run benchmarks/accuracy/lasting_tables.py'
    names = [(line['setting'], line['run']) for line in measures]
    assert len(set(names)) == len(names)
    json.dumps(measures, allow_nan=False)


def test_the_tables_of_the_grid_are_those_of_its_lines(grid):
    tables = importlib.import_module('tables')
    shown = grid.DOCUMENT.read_text().split(tables.BEGIN)[1].split(tables.END)[0]
    lines = grid.FOLDER / 'results' / 'lines.jsonl'
    assert shown == f'\n{tables.render(tables.read_notes(lines))}\n', 'run benchmarks/accuracy/grid.py tables'
