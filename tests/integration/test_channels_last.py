"""`train --channels_last`: another layout of the same numbers, resumed in the same layout."""

import pytest
import tiny
import torch
from test_amp import FULL
from tiny import ITEMS_AN_EPOCH, comparable, last_state, lines_of, train, write_training


def kernels(folder):
    """Convolution weights whose layout can be told: those of more than one channel and more than one pixel."""
    weights = last_state(folder)['modules']['student'].values()
    found = [weight for weight in weights if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2] > 1]
    assert found
    return found


def test_only_the_layout_changes(tmp_path, monkeypatch):
    """Without dropout, whose mask is drawn in the order of memory."""
    monkeypatch.setattr(torch.nn.Dropout, 'forward', lambda _, features: features)
    assert train(write_training(tmp_path / 'plain', FULL), '--seed', '3') == 0
    assert train(write_training(tmp_path / 'last', FULL), '--seed', '3', '--channels_last') == 0
    expected, found = ([line['loss'] for line in lines_of(tmp_path / folder)] for folder in ('plain', 'last'))
    assert found == pytest.approx(expected, rel=1e-3)
    assert all(weight.is_contiguous() for weight in kernels(tmp_path / 'plain'))
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels(tmp_path / 'last'))


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert train(write_training(whole, FULL), '--seed', '3', '--channels_last') == 0
    config = write_training(parts, FULL)
    monkeypatch.setattr(tiny, 'items_until_interrupt', round(2.4 * ITEMS_AN_EPOCH))
    assert train(config, '--seed', '3', '--channels_last') == 130
    assert '--channels_last --resume' in capsys.readouterr().out
    monkeypatch.setattr(tiny, 'items_until_interrupt', None)
    assert train(config, '--seed', '3', '--channels_last', '--resume') == 0
    assert tiny.without_times(lines_of(parts)) == tiny.without_times(lines_of(whole))
    assert comparable(last_state(parts)) == comparable(last_state(whole))
