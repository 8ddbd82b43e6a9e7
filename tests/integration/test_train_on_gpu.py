"""The commands on a CUDA device: near the CPU's run, in every precision, and a resumed run is an uninterrupted one."""

import json

import pytest
import tiny
import torch
from tiny import CE, KD, TRG, TRG_SIDES, assert_a_resume_is_exact, lines_of, stage, train, write_training

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.gpu

FULL = stage(4, CE + KD + TRG, sides=TRG_SIDES)
ALL_TOKENS = FULL.replace('tokens_per_image: 4', 'tokens_per_image: 16')  # each device draws others of them
FLAGS = {
    'float32': (),
    'bf16': ('--amp', 'bf16'),
    'fp16': ('--amp', 'fp16'),
    'bf16, channels last': ('--amp', 'bf16', '--channels_last'),
}


@pytest.fixture
def no_dropout(monkeypatch):
    """A CPU and a GPU draw other masks."""
    monkeypatch.setattr(torch.nn.Dropout, 'forward', lambda _, features: features)


@pytest.fixture
def deterministic(monkeypatch):
    """Sums in one order: without it a GPU's atomic additions make two equal runs differ in the last digits."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures('no_dropout')
@pytest.mark.parametrize('name', FLAGS)
def test_the_loss_stays_near_that_of_the_cpu(name, tmp_path):
    assert train(write_training(tmp_path / 'cpu', ALL_TOKENS), '--seed', '3', '--device', 'cpu') == 0
    assert train(write_training(tmp_path / 'gpu', ALL_TOKENS), '--seed', '3', '--device', 'cuda', *FLAGS[name]) == 0
    expected, found = (lines_of(tmp_path / folder) for folder in ('cpu', 'gpu'))
    rel = 0.01 if name == 'float32' else 0.03
    assert [line['loss'] for line in found] == pytest.approx([line['loss'] for line in expected], rel=rel)
    assert [line['temperature'] for line in found] == [line['temperature'] for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line['terms'].keys() == other['terms'].keys()


@pytest.mark.usefixtures('deterministic')
@pytest.mark.parametrize('name', FLAGS)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    assert_a_resume_is_exact(tmp_path, monkeypatch, FULL, '--device', 'cuda', *FLAGS[name])


def test_weights_of_a_gpu_are_read_on_a_cpu(tmp_path):
    config = write_training(tmp_path, FULL)
    assert train(config, '--seed', '3', '--device', 'cuda') == 0
    found = []
    for device in ('cuda', 'cpu'):
        assert main(['eval', config, '--device', device, '--json', str(tmp_path / f'{device}.json')]) == 0
        found.append(json.loads((tmp_path / f'{device}.json').read_text()))
    assert found[0]['test']['top1'] == found[1]['test']['top1']


def test_a_run_goes_on_on_another_device(tmp_path):
    words = ('--seed', '3')
    assert train(write_training(tmp_path, stage(2, CE + KD + TRG, sides=TRG_SIDES)), *words, '--device', 'cuda') == 0
    assert train(write_training(tmp_path, FULL), *words, '--device', 'cpu', '--resume') == 0
    assert len(lines_of(tmp_path)) == 4


def test_check_measures_a_step_on_the_gpu(tmp_path, capsys):
    assert main(['check', write_training(tmp_path, FULL), '--device', 'cuda', '--input-size', '8']) == 0
    assert 'trg' in capsys.readouterr().out


def test_auto_takes_the_gpu(tmp_path, monkeypatch):
    devices = []
    forward = tiny.TinyNet.forward
    monkeypatch.setattr(
        tiny.TinyNet, 'forward', lambda self, images: devices.append(images.device.type) or forward(self, images)
    )
    assert train(write_training(tmp_path, stage(1, CE))) == 0
    assert set(devices) == {'cuda'}
