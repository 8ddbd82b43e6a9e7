"""The runs of *What lasts* on made-up images: a teacher of the long tail, weights as shares, every method."""

import argparse
import copy
import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
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
    assert capfd.readouterr().out.startswith('run: nothing to do, all of these runs are in ')


def test_weights_are_those_at_which_a_term_pulls_as_much_as_asked(run, lasting, tmp_path, data):
    """With the weight of share 1, the term's gradient is that of ``KDLoss``, of a new student and of a trained one."""
    assert run('teacher', 'cnn_lt')[0] == 0
    line = next(line for line in run('weights', 'cnn_lt')[2] if line['method'] == 'complete')
    text = (tmp_path / 'weights' / 'cnn_lt-complete-1-epochs=20-seed0.yaml').read_text()
    file = tmp_path / 'share.yaml'
    trained = tmp_path / 'cnn_lt-kd-0.1-4-epochs=first_2_of_20-seed0' / 'best.pt'
    for weights, epoch in ((line['weights'], 2), (line['at_start'], 0)):
        file.write_text(text.replace('local_weight: 1.0', f'local_weight: {weights["1"][0]}'))
        assert file.read_text() != text
        config = load_config(str(file))
        torch.manual_seed(0)
        paths = (config.teacher_path, config.student_path)
        teacher, student = (lasting.build_with_weights(config, path)[0] for path in paths)
        if epoch:
            student.load_state_dict(torch.load(trained, weights_only=True)['model'])
        box = build_box(config, teacher, student, Placement(torch.device('cpu')))
        box.pre_epoch_process(epoch=epoch)
        (pulls,) = lasting.measure(box, student).values()
        assert sum(norm for norm, _ in pulls) / len(pulls) == pytest.approx(1, rel=0.1)


OTHERS = ('complete_others', 'kd_logitstd', 'soft_logitstd', 'soft+edges_union', 'manifold+literal_half+contextual')


@pytest.mark.parametrize('setting', ['cnn', 'vit'])
def test_every_method_takes_a_step(setting, lasting, grid, data, tmp_path, monkeypatch):
    monkeypatch.setitem(grid.SETTINGS, setting, None)
    recipe = replace(lasting.LASTING[setting], batch_size=4)
    options = SimpleNamespace(
        recipe=setting, lines=tmp_path / 'lines.jsonl', data=data, device='cpu', teacher_views=None, views_dir=tmp_path
    )
    planner, models = lasting.Lasting(options), None
    kd = lasting.KD['KDLoss']
    stored = [planner.flags(planner._planned('kd', 0, kd, 12))]
    options.teacher_views = 8
    stored.append(planner.flags(planner._planned('kd', 0, kd, 12)))
    assert stored[1] == [*stored[0], '--teacher_views', '8', '--views_dir', str(tmp_path / setting)]
    assert planner.flags(planner._planned('srd', 0, (1.0,), 12)) == stored[0]
    for name in (*lasting.CANDIDATES, *OTHERS):
        variant = lasting.variant_named(name)
        weights = kd if variant.method == 'kd' else (0.1,) * max(1, len(lasting.terms_of(variant)))
        planned = planner._planned(name, 0, weights, 12)
        file = tmp_path / 'config.yaml'
        file.write_text(grid.make_config(planned, recipe, grid.Source(data), tmp_path / 'teacher.pt', tmp_path, 10))
        config = load_config(str(file))
        import_packages(config)
        models = models or [build_model(config, path) for path in (config.teacher_path, config.student_path)]
        box = build_box(config, *copy.deepcopy(models), Placement(torch.device('cpu')))
        assert torch.isfinite(one_step(box)), name


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('sof', 'expected some of kd, literal, .* got sof in sof'),
        ('soft+literal', 'expected methods of ours with different terms, joined by `\\+`, got soft\\+literal'),
        ('soft+at', 'expected methods of ours'),
        ('contextual_others', 'expected a method with TRG'),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(name, message, lasting):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        lasting.method(name)


def test_the_full_pair_with_a_vit_takes_the_steps_of_its_one_command(lasting, grid, data, tmp_path):
    recipe = replace(lasting.LASTING['wrn_40_2_vit'], batch_size=4)
    options = SimpleNamespace(recipe='wrn_40_2_vit', lines=tmp_path / 'lines.jsonl', data=data, device='cpu')
    planner = lasting.Lasting(options)
    assert planner.teacher.name == 'wrn_40_2_wrn_16_2-teacher.pt'
    for name in ('literal', 'soft', 'at'):
        planned = planner._planned(name, 0, (0.1,) * max(1, len(lasting.terms_of(lasting.variant_named(name)))), 240)
        file = tmp_path / 'config.yaml'
        file.write_text(grid.make_config(planned, recipe, grid.Source(data), tmp_path / 'teacher.pt', tmp_path, 10))
        config = load_config(str(file))
        models = [build_model(config, path) for path in (config.teacher_path, config.student_path)]
        assert torch.isfinite(one_step(build_box(config, *models, Placement(torch.device('cpu'))))), name
    script = (Path(lasting.__file__).with_name('gpu.sh')).read_text()
    named = re.search(r'--settings (.*)', script)[1].split()
    assert set(named) < set(lasting.LASTING)
    assert all(lasting.LASTING[name].schedules == (240,) and grid.SETTINGS[name] is None for name in named)


def test_a_run_far_behind_kd_at_half_time_is_dropped(lasting, data, tmp_path, monkeypatch):
    options = SimpleNamespace(recipe='vit', stage='run', lines=tmp_path / 'vit.jsonl', data=data, out=tmp_path)
    vars(options).update(device='cpu', threads=1, teacher_views=None, drop=3.0)
    (tmp_path / 'cpu-teacher.pt').write_bytes(b'')
    planner = lasting.Lasting(options)
    run = planner._planned('soft', 0, (1.0,), 4)
    folder = tmp_path / run.name
    folder.mkdir()

    def behind(*accuracies):
        line = '{{"val_top1": {}, "loss": 1.0, "seconds": {{}}}}\n'
        (folder / 'metrics.jsonl').write_text(''.join(line.format(accuracy) for accuracy in accuracies))
        return planner._behind(run)

    assert behind(1, 1) == 0  # KD is not finished
    note = {
        'stage': 'run',
        'recipe': 'vit',
        'run': 'vit-kd-0.1-4-epochs=4-seed0',
        'kd': [],
        'val_top1s': [70, 60, 80, 90],
    }
    options.lines.write_text(json.dumps(note) + '\n')
    assert [behind(50), behind(50, 67), behind(50, 67, 99), behind(1, 1, 1, 1)] == [0, 3, 3, 0]

    behind(50, 65.5)
    trainer, metrics = tmp_path / 'trainer', folder / 'metrics.jsonl'
    written = metrics.rename(tmp_path / 'written')
    trainer.write_text(f'#!/bin/sh\ntest -e {metrics} || cp {written} {metrics}\nexec sleep 60\n')
    trainer.chmod(0o755)
    monkeypatch.setattr(lasting, 'SECONDS_BETWEEN_LOOKS', 0.05)
    monkeypatch.setattr(planner, '_num_steps', lambda run: 10)
    behind(1, 1)  # left by another configuration
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'executable', str(trainer))
        assert planner._train(run)
    line = json.loads(options.lines.read_text().splitlines()[-1])
    assert (line['run'], line['dropped'], line['val_top1s']) == (run.name, 4.5, [50, 65.5])
    assert 'test_top1' not in line
    assert planner._is_noted(run)
    assert lasting.watched([sys.executable, '-c', 'raise SystemExit(7)'], lambda: 0.0, 3.0) == 7
