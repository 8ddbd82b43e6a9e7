"""The accuracy grid on made-up images: every stage, what it notes, that it goes on where it stopped, and its tables."""

import copy
import importlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from host import one_step

from trg_torchdistill.cli.probe.build import build_box, build_model
from trg_torchdistill.cli.recipe.config import load_config
from trg_torchdistill.cli.runtime.placement import Placement

pytestmark = pytest.mark.slow

ABLATED = {
    ('kd+trg', ''),
    ('kd+trg', 'kl_direction=student_teacher'),
    ('kd', 'batch_size=4'),
    ('kd+trg', 'batch_size=4'),
    ('kd', 'KDLoss=temperature 8'),
    ('kd+trg', 'KDLoss=temperature 8'),
    ('kd+trg', 'epochs=2'),
    ('kd+local', ''),
    ('kd+local', 'teacher=training mode'),
    ('kd+local', 'teacher=of other images'),
    ('kd+contextual', ''),
    ('kd+contextual', 'normalized contextual=temperature 0.1'),
}
RECIPES = ['cpu', 'resnet56_resnet20', 'wrn_40_2_wrn_16_2', 'resnet32x4_shufflenetv2']


def tables():
    return importlib.import_module('tables')


CANDIDATES = {
    'kd': ((0.1, 4.0), (0.5, 4.0)),
    'kd+local': ((0.5,),),
    'kd+trg': ((1.0, 0.3),),
    'kd+contextual': ((30.0,),),
    'kd+trg+contextual': ((1.0, 0.3, 100.0),),
}
AXES = ('kl_direction', 'epochs', 'batch_size', 'KDLoss', 'teacher', 'normalized contextual')


@pytest.fixture
def run(grid, run_stage, monkeypatch):
    """Runs a stage with a recipe of one epoch and few candidates; returns the exit code and the notes."""
    small = replace(grid.RECIPES['cpu'], epochs=1, teacher_cycles=((1, 0.2), (1, 0.1)), batch_size=8)
    monkeypatch.setitem(grid.RECIPES, 'cpu', small)
    for name in grid.METHODS.keys() - CANDIDATES:
        monkeypatch.delitem(grid.METHODS, name)
    for name, candidates in CANDIDATES.items():
        monkeypatch.setitem(grid.METHODS, name, replace(grid.METHODS[name], candidates=candidates))
    variants = [replace(each, value='4', batch_size=4) if each.batch_size == 64 else each for each in grid.VARIANTS]
    variants = [replace(each, value='2', epochs=2) if each.epochs else each for each in variants]
    monkeypatch.setattr(grid, 'VARIANTS', [each for each in variants if (each.method, each.name) in ABLATED])
    return lambda stage: run_stage(stage, CANDIDATES, '--axes', *AXES)


def test_the_stages_of_a_grid(grid, run, data, tmp_path, monkeypatch, capfd):
    assert 'run `grid.py teacher` first' in run('run')[0]
    assert run('teacher')[0] == 0
    assert 'run `grid.py tune` first' in run('run')[0]
    code, notes = run('tune')
    assert code == 0
    assert [(note['stage'], note['method']) for note in notes] == [
        ('teacher', 'teacher'),
        ('teacher', 'teacher'),
        ('tune', 'kd'),
        ('tune', 'kd'),
    ]
    assert all('test_top1' not in note for note in notes[2:])
    best = max(sorted(notes[2:], key=lambda note: note['weights']), key=lambda note: note['val_top1'])

    code, notes = run('run')
    assert code == 0
    ran = {note['method']: note for note in notes if note['stage'] == 'run'}
    assert ran['kd']['weights'] == ran['kd+trg+contextual']['kd'] == best['weights']
    assert ran['kd+trg+contextual']['weights'] == [1.0, 0.3, 100.0]
    assert set(ran['kd']['groups']) == {'many', 'medium', 'few'}
    assert {'seed', 'config_sha256', 'teacher_sha256', 'commit', 'machine', 'date', 'minutes'} <= set(ran['kd'])

    code, notes = run('ablate')
    assert code == 0
    ablated = {(note['method'], note['variant']): note for note in notes if note['stage'] == 'ablate'}
    assert set(ablated) == ABLATED
    hashes = [note['config_sha256'] for note in notes if note['stage'] == 'ablate']
    assert len(set(hashes)) == len(hashes) == len(ABLATED) + 2  # two have a second pair of weights
    assert all('test_top1' not in note for note in ablated.values())
    assert {note['epochs'] for name, note in ablated.items() if name != ('kd+trg', 'epochs=2')} == {1}
    assert ablated['kd+trg', 'epochs=2']['epochs'] == 2
    assert (
        ablated['kd', 'KDLoss=temperature 8']['weights'] == ablated['kd+trg', 'KDLoss=temperature 8']['kd'] == [0.1, 8]
    )

    capfd.readouterr()
    assert run('run') == run('ablate') == (0, notes)  # nothing is left to do
    said = capfd.readouterr().out.splitlines()
    assert [line.split(',')[0] for line in said] == ['run: nothing to do', 'ablate: nothing to do']

    document = tmp_path / 'results.md'
    document.write_text(f'before\n{tables().BEGIN}old\n{tables().END}after\n')
    tables().write_tables(notes, document)
    text = document.read_text()
    assert text.startswith('before\n')
    assert text.endswith('after\n')
    assert 'old' not in text
    assert f'| kd+trg+contextual | 1/0.3/100 | 1 | {ran["kd+trg+contextual"]["test_top1"]:.2f} |' in text
    assert '0.1/4: ' in text
    kd, weights = best['val_top1'], f'{best["weights"][0]:g}/4'
    plain, same, hot, hot_kd = (
        ablated[name]['val_top1']
        for name in [
            ('kd+trg', ''),
            ('kd+trg', 'kl_direction=student_teacher'),
            ('kd+trg', 'KDLoss=temperature 8'),
            ('kd', 'KDLoss=temperature 8'),
        ]
    )
    compared = f'{same - plain:+.2f} | {same - kd:+.2f}'
    assert f'| kd | none | {weights} | 1 | {kd:.2f} |  |  |' in text
    assert f'| kd+trg | kl_direction=student_teacher | 1/0.3 | 1 | {same:.2f} | {compared} |' in text
    compared = f'{hot - plain:+.2f} | {hot - hot_kd:+.2f}'
    assert f'| kd+trg | KDLoss=temperature 8 | 1/0.3 | 1 | {hot:.2f} | {compared} |' in text
    rows = [line for line in text.splitlines() if line.startswith('| kd+trg | epochs=2 ')]
    assert [row.split(' | ')[2] for row in rows] == ['0.3/1', '1/0.3']

    figures = importlib.import_module('figures')
    assert figures.draw_results(notes, 'cpu', tmp_path / 'accuracy')
    svg = (tmp_path / 'accuracy.svg').read_text()
    assert all(f'<!-- {name} -->' in svg for name in (*ran, 'longtailed'))
    assert (tmp_path / 'accuracy.png').stat().st_size > 0
    others = [{**note, 'recipe': 'other'} for note in notes if note['stage'] == 'tune']
    assert figures.draw_ablations([*notes, *others], 'cpu', tmp_path / 'ablations')
    svg = (tmp_path / 'ablations.svg').read_text()
    assert '<!-- kd+trg kl_direction=student_teacher -->' in svg
    assert 'epochs=' not in svg
    assert not figures.draw_results([note for note in notes if note['stage'] != 'run'], 'cpu', tmp_path / 'none')
    assert not figures.draw_ablations([note for note in notes if not note['variant']], 'cpu', tmp_path / 'none')
    assert not (tmp_path / 'none.svg').exists()

    features = importlib.import_module('features')
    words = [str(tmp_path / ran['kd']['run']), '--data', str(data), '--teacher', str(tmp_path / 'cpu-teacher.pt')]
    monkeypatch.setattr(sys, 'argv', ['features.py', *words])
    features.main()
    rows = [line.split('|')[1:-1] for line in capfd.readouterr().out.splitlines() if line.startswith('|')]
    assert [row[0].strip() for row in rows[2:5]] == ['teacher', ran['kd']['run'], 'chance']
    teacher, student = ([float(cell) for cell in row[1:]] for row in rows[2:4])
    assert teacher[2:4] == [0.0, 8.0]
    assert student[2] > 0
    assert student[3] < 8
    assert student[4] < student[5]
    assert [float(row[0]) for row in rows[7:]] == [0.5, 0.1, 0.05]
    assert all(0 < sum(map(float, row[1:])) <= 100 for row in rows[7:])

    folders = [str(tmp_path / ran[name]['run']) for name in ('kd', 'kd+trg')]
    monkeypatch.setattr(sys, 'argv', ['gradients.py', *folders])
    importlib.import_module('gradients').main()
    rows = [line.split(' | ') for line in capfd.readouterr().out.splitlines()[2:]]
    assert [row[1:3] for row in rows] == [[epochs, f'trg.{part}'] for epochs in '01' for part in ('local', 'global')]
    assert all(float(row[3]) > 0 and abs(float(row[4].strip(' |'))) < 1 for row in rows)


def test_weights_beyond_the_candidates_are_tried_when_an_end_did_best(grid):
    method = replace(grid.METHODS['kd+at'], candidates=((1.0,), (2.0,), (3.0,)), beyond=((0.5,), (9.0,)))
    assert method.untried({(2.0,): 70.0}) == [(1.0,), (3.0,)]
    middle, first, last = (
        {(1.0,): low, (2.0,): mid, (3.0,): high} for low, mid, high in ((1, 2, 1), (2, 2, 1), (1, 2, 3))
    )
    assert [method.untried(each) for each in (middle, first, last)] == [[], [(0.5,)], [(9.0,)]]
    assert method.untried({**first, (0.5,): 3.0}) == []
    assert method.best({**first, (0.5,): 3.0}) == (0.5,)
    assert method.best(first) == (1.0,)


def test_a_commit_is_dirty_when_anything_but_results_differs_from_it(grid, tmp_path, monkeypatch):
    folder = tmp_path / 'benchmarks' / 'accuracy'
    files = [folder / 'results' / 'lines.jsonl', tmp_path / 'docs' / 'results.md', tmp_path / 'code.py']
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@example.org']
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('before')
    for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'first']):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(grid, 'FOLDER', folder)
    clean = grid._commit()
    for file, mark in zip(files, ('', '', '-dirty'), strict=True):
        file.write_text('after')
        assert grid._commit() == clean + mark


@pytest.mark.parametrize('key', RECIPES)
def test_every_method_of_a_recipe_takes_a_step(key, grid, data, tmp_path):
    recipe = replace(grid.RECIPES[key], batch_size=4, num_workers=0)
    models, stepped = None, set()
    for name, method in grid.METHODS.items():
        kd = () if name in ('student', 'kd') else (0.1, 4.0)
        planned = grid.Run('whole', name, 0, method.candidates[0], kd)
        file = tmp_path / 'config.yaml'
        file.write_text(grid.make_config(planned, recipe, grid.Source(data), tmp_path / 'teacher.pt', tmp_path, 10))
        config = load_config(str(file))
        if config.teacher_path is None:
            continue
        models = models or [build_model(config, path) for path in (config.teacher_path, config.student_path)]
        box = build_box(config, *copy.deepcopy(models), Placement(torch.device('cpu')))
        assert torch.isfinite(one_step(box)), name
        stepped.add(name)
    assert stepped == set(grid.METHODS) - {'student'}
    assert len(stepped) == 12


def test_spread_and_paired_interval(grid):
    """t of 2 degrees of freedom at 97.5 % is 4.3027; the standard error of 1, 2, 3 is 1 / sqrt(3)."""
    assert tables().spread([1.0, 2.0, 3.0]) == '2.00 ± 1.00'
    assert tables().interval([1.0, 2.0, 3.0]) == '+2.00 (-0.48 to +4.48)'
    assert tables().interval([1.5]) == '+1.50'
