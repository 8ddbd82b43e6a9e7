"""Each benchmark runs with tiny sizes and writes the JSON behind `docs/performance.md`; no time is asserted."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import numpy
import pytest
import torch

FOLDER = Path(__file__).parents[2] / 'benchmarks'
TABLES = {
    'infonce': ('losses.py', {'global_relationship_loss', 'dense cross-entropy', 'two products'}),
    'knn': ('losses.py', {'nearest_neighbors', 'product', 'topk', 'product + topk', 'cdist, topk'}),
    'local': ('losses.py', {'local_preserving_loss', 'dense, cdist', 'dense, Gram', 'one product'}),
    'contextual': ('losses.py', {'contextual_loss', 'dense', 'four products'}),
    'cifar': ('step.py', {'plain KD', 'TRG', 'KR (ReviewKD)'}),
    'imagenet': ('step.py', {'plain KD', 'TRG', 'KR (ReviewKD)'}),
}
MACHINE = {'cpu', 'cores', 'threads', 'device', 'torch', 'python'}


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run_table(script, table):
        out = tmp_path / 'out.json'
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.setattr(sys, 'argv', [str(FOLDER / script), table, '--smoke', '--json', str(out)])
        threads = torch.get_num_threads()
        runpy.run_path(str(FOLDER / script), run_name='__main__')
        assert torch.get_num_threads() == threads
        return json.loads(out.read_text())

    return run_table


RELATIONS = {
    'local': {'own', 'teacher', 'union', 'LSP', 'CIRKD'},
    'global': {'self', 'teacher', 'self, queue', 'teacher, queue', 'two products', 'three products'},
}


@pytest.mark.parametrize('table', RELATIONS)
def test_the_options_of_the_relations_are_timed_beside_their_peers(run, table):
    (row,) = run('relations.py', table)['rows']
    assert set(row['peers']) == RELATIONS[table]


@pytest.mark.slow
@pytest.mark.parametrize('table', TABLES)
def test_a_timing_table_has_every_peer_with_its_spread_and_samples(run, table):
    script, peers = TABLES[table]
    result = run(script, table)
    assert result['command'] == f'python benchmarks/{script} {table} --smoke'
    assert set(result['machine']) == MACHINE
    assert result['date'].startswith('20')
    row = result['rows'][0]
    assert peers <= set(row['peers'])
    assert not row.get('failed')
    assert row['peers'][row['reference']]['ratio']['median'] == 1
    for peer in row['peers'].values():
        assert len(peer['samples']) == row['rounds'] == 2
        assert 0 < peer['seconds']['min'] <= peer['seconds']['q1'] <= peer['seconds']['median'] <= peer['seconds']['q3']
    for bar in (bar for row in result['rows'] for bar in row.get('bars', [])):
        assert set(bar) == {'text', 'value', 'limit', 'met'}


@pytest.mark.slow
def test_the_memory_table_has_a_growth_for_each_size(run):
    row = run('losses.py', 'memory')['rows'][0]
    assert row['M'] == [128, 256]
    assert len(row['growth_bytes']) == 2
    assert 'exponent_of_growth' in row
    assert row['bars']


def test_the_operations_of_each_loss_are_counted(monkeypatch, tmp_path, capsys):
    out = tmp_path / 'out.json'
    monkeypatch.setattr(sys, 'argv', ['operations.py', '--sizes', '64x16', '--json', str(out)])
    runpy.run_path(str(FOLDER / 'operations.py'), run_name='__main__')
    counts = json.loads(out.read_text())['operations']
    assert {'TRGLoss', 'local_preserving_loss', 'global_relationship_loss', 'contextual_loss'} < set(counts)
    assert 10 < counts['contextual_loss'] < counts['local_preserving_loss'] < counts['TRGLoss']
    for name in ('TRGLoss', 'local_preserving_loss'):
        assert counts[f"{name}, edges: 'teacher'"] < counts[name], 'one neighbour search, not two'
    assert f'| TRGLoss | {counts["TRGLoss"]} |' in capsys.readouterr().out


@pytest.mark.slow
def test_a_segmentation_step_is_timed_with_its_memory(run):
    result = run('tasks/dense_cost.py', '240')
    (row,) = result['rows']
    assert result['command'] == 'python benchmarks/tasks/dense_cost.py 240 --smoke'
    assert set(row['memory_ratio']) == set(row['peers']) == {'without TRG', 'contextual, stride 16'}
    assert row['memory_ratio']['without TRG'] == 1


def test_segmentation_runs_that_are_there_are_not_made_again_and_give_the_table(tmp_path, monkeypatch, capsys):
    (tmp_path / 'shapes').mkdir()
    (tmp_path / 'trg.yaml').touch()
    for name, last, best in [
        ('teacher', 60, 61),
        ('kd-0', 30, 32),
        ('kd-1', 32, 36),
        ('trg-0', 40, 41),
        ('trg-1', 40, 43),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / 'log.txt').write_text(f'mean IoU: 1.0, a\nmean IoU: {last}.0, b\nmean IoU: {best}.0, c\n')
    words = ['segmentation.py', 'no/checkout', str(tmp_path), '--seeds', '0', '1', '--methods', 'kd', 'trg']
    monkeypatch.setattr(sys, 'argv', words)
    runpy.run_path(str(FOLDER / 'tasks' / 'segmentation.py'), run_name='__main__')
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == ['| kd | 34.0 ± 2.8 | 31.0 ± 1.4 | 32.0, 36.0 |', '| trg | 42.0 ± 1.4 | 40.0 ± 0.0 | 41.0, 43.0 |']


def test_the_shapes_are_the_same_again_and_lie_inside_their_images(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER / 'tasks'))
    shapes = importlib.import_module('shapes')
    for folder in ('a', 'b'):
        shapes.draw_split(tmp_path / folder, 'val', 12, numpy.random.default_rng(0))
    first, again = ((tmp_path / folder / 'val.json').read_text() for folder in ('a', 'b'))
    assert first == again
    found = json.loads(first)
    sizes = {image['id']: (image['width'], image['height']) for image in found['images']}
    assert len(sizes) == len(list((tmp_path / 'a' / 'val').iterdir())) == 12
    assert {one['category_id'] for one in found['annotations']} == {5, 2, 16, 9}
    for one in found['annotations']:
        x, y, width, height = one['bbox']
        assert min(x, y) >= 0
        assert x + width < sizes[one['image_id']][0]
        assert y + height < sizes[one['image_id']][1]
        assert 0 < one['area'] < width * height + 1


def test_the_tables_of_the_documentation_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    tables = importlib.import_module('performance_tables')
    text = tables.DOCUMENT.read_text()
    marked = tables.MARKED.findall(text)
    assert {name for _, name, _ in marked} == {
        str(path.relative_to(FOLDER / 'results')) for path in (FOLDER / 'results').rglob('*.json')
    }
    for _, name, _ in marked:
        assert f'<!-- table: {name} -->\n{tables.render(name)}<!-- table: end -->' in text


def test_the_table_of_configurations_has_a_row_of_each_yaml(monkeypatch, tmp_path, capsys):
    folder = tmp_path / 'configs' / 'sample' / 'digits' / 'kd'
    folder.mkdir(parents=True)
    for name in ('kd', 'student'):
        folder.joinpath(f'{name}.yaml').write_text((FOLDER.parent / f'configs/sample/digits/{name}.yaml').read_text())
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, 'argv', ['configs_table.py', str(tmp_path), '--no-check'])
    assert importlib.import_module('configs_table').main() == 0
    said = capsys.readouterr().out
    assert '| `sample/digits/kd/kd.yaml` | upgraded: ' in said
    assert '- 1 of 1: upgraded' in said
    assert '- 1 more have no teacher' in said
