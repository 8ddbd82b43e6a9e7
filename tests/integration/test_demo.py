"""The demo as a user runs it, with one epoch a training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trg_torchdistill.cli.demo import command as demo
from trg_torchdistill.cli.main import main
from trg_torchdistill.errors import TRGError

COMMAND = [sys.executable, '-m', 'trg_torchdistill', 'demo', '--quick', '--device', 'cpu', '--out']
METHODS = ('teacher ResNet-20', 'student alone', 'KD', 'KD + TRG')
SECONDS = 600


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')
    return out, subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.slow
def test_the_quick_demo_runs_to_its_table(finished):
    out, process = finished
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ''
    for method in METHODS:
        assert f'\n{method} ' in process.stdout
    for position, name in enumerate(demo.CONFIGS):
        assert f'[{position + 1}/6] {name}' in process.stdout
    assert f'In {out}/: curves.png, results.json' in process.stdout
    assert 'only that everything runs' in process.stdout


@pytest.mark.slow
def test_the_quick_demo_leaves_numbers_and_a_picture(finished):
    out, _ = finished
    results = json.loads((out / 'results.json').read_text(encoding='utf-8'))
    assert (results['seed'], results['quick']) == (0, True)
    assert tuple(results['runs']) == demo.CONFIGS
    for name, run in results['runs'].items():
        assert run['epochs'] == 1
        assert run['test']['n'] == 600
        assert ('groups' in run['test']) == name.startswith('longtailed')
    assert [run['train_images'] for run in results['runs'].values()] == [1000, 50, 50, 50, 100, 100]
    assert (out / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    assert sorted(path.name for path in out.iterdir()) == ['configs', 'curves.png', 'resource', 'results.json', 'runs']


@pytest.mark.slow
def test_a_training_can_be_repeated_in_the_same_folder(finished, capsys):
    out, _ = finished
    result = demo.train(out / 'configs' / 'student.yaml', out, seed=0, device='cpu', prefix='again')
    assert len(result.history) == 1
    assert capsys.readouterr().out.startswith('again test top-1 ')


@pytest.mark.slow
def test_ctrl_c_stops_the_demo_and_its_training(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + SECONDS
    while not (tmp_path / 'runs' / 'teacher' / 'last.pt').exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, '')
    assert 'interrupted; 0 of 6 trainings are finished' in out
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_failed_training_shows_the_end_of_its_log(tmp_path):
    config = tmp_path / 'broken.yaml'
    config.write_text('models: {}\n', encoding='utf-8')
    with pytest.raises(TRGError, match=r'broken.yaml failed; the end of .*output.txt:\n  error: expected'):
        demo.train(config, tmp_path, seed=0, device='cpu', prefix='')


def test_missing_packages_are_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    assert main(['demo', '--out', str(tmp_path)]) == 2
    assert "pip install 'trg_torchdistill[demo]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_yamls_are_a_part_of_the_package_and_a_checkout_names_them_among_its_configs():
    configs = Path(__file__).parents[2] / 'configs' / 'sample' / 'digits'
    assert sorted(path.stem for path in configs.iterdir()) == sorted(demo.CONFIGS)
    for path in configs.iterdir():
        assert path.resolve() == demo.SAMPLES / path.name


@pytest.mark.parametrize('quick', [True, False])
def test_a_quick_copy_differs_in_its_number_of_epochs_only(quick, tmp_path):
    copies = demo._copy_configs(tmp_path / 'configs', quick)
    for name in demo.CONFIGS:
        text = (demo.SAMPLES / f'{name}.yaml').read_text(encoding='utf-8').splitlines()
        changed = zip(copies[name].read_text(encoding='utf-8').splitlines(), text, strict=True)
        differences = [line for line, before in changed if line != before]
        assert differences == (['  num_epochs: &num_epochs 1'] if quick else [])
