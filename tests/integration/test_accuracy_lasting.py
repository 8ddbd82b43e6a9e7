"""The runs of *What lasts* on made-up images: a teacher of the long tail, weights as shares, every method."""

import copy
import importlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from host import one_step

from trg_torchdistill.cli.probe.build import build_box, build_model
from trg_torchdistill.cli.recipe.config import import_packages, load_config
from trg_torchdistill.cli.runtime.placement import Placement

pytestmark = pytest.mark.slow

MEASURED, RUN = ('kd', 'literal_half', 'complete', 'at'), ('kd', 'complete_others')


@pytest.fixture
def lasting(grid):
    return importlib.import_module('lasting')


@pytest.fixture
def run(lasting, grid, run_stage, data, tmp_path, monkeypatch):
    """Runs a stage in tiny; returns the exit code, the notes and the weights."""
    small = {'batch_size': 8, 'flags': (), 'schedules': (1, 2)}
    monkeypatch.setitem(
        lasting.LASTING, 'cnn_lt', replace(lasting.LASTING['cnn_lt'], teacher_cycles=((1, 0.2),), **small)
    )
    monkeypatch.setitem(lasting.LASTING, 'vit_lt', replace(lasting.LASTING['vit_lt'], **small))
    for name in ('cnn_lt', 'vit_lt'):
        monkeypatch.setitem(grid.SETTINGS, name, {'imbalance': 4})
    lines, weights = tmp_path / 'lines.jsonl', tmp_path / 'weights.jsonl'

    def stage(name, setting, *words):
        words = [
            name,
            '--settings',
            setting,
            '--data',
            str(data),
            '--out',
            str(tmp_path),
            '--lines',
            str(lines),
            *words,
        ]
        words += ['--weights', str(weights), '--methods', *(RUN if name == 'run' else MEASURED)]
        words += ['--shares', '0.1', '--reference', '20']
        monkeypatch.setattr(sys, 'argv', ['lasting.py', *words])
        with pytest.raises(SystemExit) as ended:
            lasting.main()
        found = (file.read_text().splitlines() if file.exists() else [] for file in (lines, weights))
        return ended.value.code, *([json.loads(line) for line in each] for each in found)

    return stage


def test_the_stages(run, tmp_path, capfd):
    assert 'run `lasting.py teacher` first' in run('weights', 'vit_lt')[0]
    assert run('teacher', 'cnn_lt')[0] == 0
    assert (tmp_path / 'longtailed-teacher.pt').exists()
    assert 'run `lasting.py weights` first' in run('run', 'vit_lt')[0]

    code, notes, weights = run('weights', 'vit_lt')
    assert code == 0
    assert [note['method'] for note in notes] == ['teacher']
    falling = (tmp_path / 'weights' / 'vit_lt-literal_half-1-1-epochs=20-seed0.yaml').read_text()
    assert falling.count('until: 0.5') == 2
    assert 'key: AdamW' in falling
    assert all(line['setting'] == 'vit_lt' and line['epochs'] == [2, 20] for line in weights)
    found = {line['method']: line['weights'] for line in weights}
    assert list(found) == ['literal_half', 'complete', 'at']
    assert [len(each) for each in found['literal_half'].values()] == [2, 2, 2]
    for low, middle, high in (tuple(each.values()) for each in found.values()):
        assert [value / first for first, value in zip(low, middle, strict=True)] == pytest.approx(
            [3] * len(low), rel=0.1
        )
        assert [value / first for first, value in zip(low, high, strict=True)] == pytest.approx(
            [10] * len(low), rel=0.1
        )

    code, notes, _ = run('run', 'vit_lt')
    assert code == 0
    runs = [note for note in notes if note['stage'] == 'run']
    assert len(runs) == len({note['run'] for note in runs}) == 2 * len(RUN)
    assert {note['epochs'] for note in runs} == {len(note['val_top1s']) for note in runs} == {1, 2}
    names = {note['run'] for note in runs}
    low = found['complete']['0.1'][0]
    words = ('kd-0.1-4', f'complete_others-{low:g}')
    assert names == {f'vit_lt-{each}-epochs={epochs}-seed0' for each in words for epochs in (1, 2)}
    assert all(set(note['groups']) == {'many', 'medium', 'few'} for note in runs)
    capfd.readouterr()
    assert run('run', 'vit_lt')[:2] == (0, notes)  # nothing is left to do
    assert capfd.readouterr().out == ''


def test_weights_are_those_at_which_a_term_pulls_as_much_as_asked(run, lasting, tmp_path, data):
    """With the weight of share 1, the term's gradient is that of ``KDLoss``."""
    assert run('teacher', 'cnn_lt')[0] == 0
    weights = {line['method']: line['weights'] for line in run('weights', 'cnn_lt')[2]}
    text = (tmp_path / 'weights' / 'cnn_lt-complete-1-epochs=20-seed0.yaml').read_text()
    file = tmp_path / 'share.yaml'
    file.write_text(text.replace('local_weight: 1.0', f'local_weight: {weights["complete"]["1"][0]}'))
    assert file.read_text() != text
    config = load_config(str(file))
    teacher, student = (
        lasting.build_with_weights(config, path)[0] for path in (config.teacher_path, config.student_path)
    )
    trained = tmp_path / 'cnn_lt-kd-0.1-4-epochs=first_2_of_20-seed0' / 'best.pt'
    student.load_state_dict(torch.load(trained, weights_only=True)['model'])
    torch.manual_seed(0)
    box = build_box(config, teacher, student, lasting.CPU)
    box.pre_epoch_process(epoch=2)
    (pulls,) = lasting.measure(box, student).values()
    assert sum(norm for norm, _ in pulls) / len(pulls) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize('setting', ['cnn', 'vit'])
def test_every_method_takes_a_step(setting, lasting, grid, data, tmp_path, monkeypatch):
    monkeypatch.setitem(grid.SETTINGS, setting, None)
    recipe = replace(lasting.LASTING[setting], batch_size=4)
    options = SimpleNamespace(
        recipe=setting, lines=tmp_path / 'lines.jsonl', data=data, device='cpu', teacher_views=None, views_dir=tmp_path
    )
    planner, models = lasting.Lasting(options), None
    stored = [planner.flags(planner._planned('kd', 0, lasting.KD, 12))]
    options.teacher_views = 8
    stored.append(planner.flags(planner._planned('kd', 0, lasting.KD, 12)))
    assert stored[1] == [*stored[0], '--teacher_views', '8', '--views_dir', str(tmp_path / setting)]
    assert planner.flags(planner._planned('srd', 0, (1.0,), 12)) == stored[0]
    for name, variant in lasting.VARIANTS.items():
        weights = lasting.KD if name == 'kd' else (0.1,) * max(1, len(grid.METHODS[variant.method].terms))
        planned = planner._planned(name, 0, weights, 12)
        file = tmp_path / 'config.yaml'
        file.write_text(grid.make_config(planned, recipe, grid.Source(data), tmp_path / 'teacher.pt', tmp_path, 10))
        config = load_config(str(file))
        import_packages(config)
        models = models or [build_model(config, path) for path in (config.teacher_path, config.student_path)]
        box = build_box(config, *copy.deepcopy(models), Placement(torch.device('cpu')))
        assert torch.isfinite(one_step(box)), name
