"""What `train --teacher_views` refuses: what views cannot stand for, stores of something else, damage, a full disk."""

import os
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny import CE, KD, SIDES, TRG, TRG_SIDES, stage, stages, train, whole_yaml, write, write_taught, write_training
from torch import nn
from torch.utils.data import default_collate
from torchdistill.datasets.registry import register_collate_func
from torchdistill.models.registry import register_model

from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.train import views_store
from trg_torchdistill.cli.train.views import check_views
from trg_torchdistill.errors import TRGError


@register_collate_func
def tiny_mixup(items):
    images, labels, supplements = default_collate(items)
    return images.flip(0) + images, labels, supplements


@register_model
class tiny_tuple_net(tiny.TinyNet):
    """Its `layer1` gives a tuple, as an attention does."""

    def __init__(self, width=4):
        super().__init__(width)
        self.layer1 = Pair(self.layer1)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(images)[0]).mean((2, 3)))


class Pair(nn.Sequential):
    def forward(self, images):
        return super().forward(images), None


ALL = stage(1, CE + KD + TRG, sides=TRG_SIDES)
ONLY_KD = stage(1, CE + KD, sides=SIDES + "pre_epoch_process: 'pre_epoch_process_with_trg'\n")


OTHERS = {
    'weights': ((), ('width: 6}', 'width: 6} '), ['`teacher_weights` was']),
    'data': ((), ('size: 24}', 'size: 30}'), ['`data.init.kwargs.size` was 24, now it is 30', '`num_images` was 24']),
    'transform': ((), ('size: 24}', 'size: 24, noise: 0.5}'), ['`data.init.kwargs.noise` was null, now it is 0.5']),
    'precision': (('--amp', 'bf16'), ('', ''), ['`amp` was null, now it is "bf16"']),
}


@pytest.mark.parametrize('name', OTHERS)
def test_views_of_something_else_are_refused_with_what_differs(tmp_path, capsys, name):
    words, change, parts = OTHERS[name]
    shared = ('--teacher_views', '1', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught(tmp_path, 'first', ONLY_KD), *shared) == 0
    if name == 'weights':
        torch.save(tiny.tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    capsys.readouterr()
    assert train(write_taught(tmp_path, 'second', ONLY_KD, change), *shared, *words) == 2
    error = capsys.readouterr().err
    for part in ('to hold views that fit this run, got others: ', 'or name another folder with `--views_dir`', *parts):
        assert part in error
    assert not (tmp_path / 'second' / 'student').exists()


def test_other_images_behind_equal_words_are_noticed(tmp_path, capsys, monkeypatch):
    shared = ('--teacher_views', '1', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught(tmp_path, 'first', ONLY_KD), *shared) == 0
    get = tiny.Blobs.__getitem__
    monkeypatch.setattr(tiny.Blobs, '__getitem__', lambda self, index: (2 * get(self, index)[0], get(self, index)[1]))
    assert train(write_taught(tmp_path, 'second', ONLY_KD), *shared) == 2
    assert '`items` was "' in capsys.readouterr().err


def test_another_teacher_of_the_same_weights_is_noticed(tmp_path, capsys, monkeypatch):
    shared = ('--teacher_views', '1', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught(tmp_path, 'first', ALL), *shared) == 0
    forward = tiny.TinyNet.forward
    monkeypatch.setattr(tiny.TinyNet, 'forward', lambda self, images: forward(self, images.flip(3)))
    capsys.readouterr()
    assert train(write_taught(tmp_path, 'second', ALL), *shared) == 2
    assert 'got another `logits`: its code or its `forward_proc:` has changed' in capsys.readouterr().err


@pytest.mark.parametrize('damage', ['cut', 'other', 'facts', 'no facts'])
def test_a_damaged_store_is_refused(tmp_path, capsys, damage):
    words, folder = ('--teacher_views', '2', '--views_dir', str(tmp_path / 'shared')), tmp_path / 'shared'
    assert train(write_taught(tmp_path, 'first', ONLY_KD), *words) == 0
    file = folder / 'view-1' / 'logits.npy'
    if damage == 'cut':
        file.write_bytes(file.read_bytes()[:-2])
    elif damage == 'other':
        np.save(file, np.zeros((24, 3), np.float16))
    elif damage == 'facts':
        (folder / 'views.json').write_text('{')
    else:
        (folder / 'views.json').unlink()
    capsys.readouterr()
    assert train(write_taught(tmp_path, 'second', ONLY_KD), *words) == 2
    error = capsys.readouterr().err
    assert 'remove ' in error
    assert str(folder) in error


def test_a_full_disk_is_told_before_the_first_view(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(views_store.shutil, 'disk_usage', lambda place: SimpleNamespace(free=10_000))
    assert train(write_training(tmp_path, ONLY_KD), '--teacher_views', '2') == 2
    assert "expected room for 0.02 MB of the teacher's views in " in capsys.readouterr().err
    assert not list(tmp_path.rglob('view-*'))


def test_a_disk_that_fills_keeps_whole_views(tmp_path, capsys, monkeypatch):
    synced, sync = [], os.fsync

    def fill(number):
        synced.append(number)
        if len(synced) > 5:
            raise OSError(28, 'No space left on device')
        sync(number)

    monkeypatch.setattr(views_store.os, 'fsync', fill)
    assert train(write_training(tmp_path, ONLY_KD), '--teacher_views', '3') == 1
    assert 'got No space left on device' in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / 'student' / 'views').iterdir()) == ['view-0', 'views.json']


def test_values_beyond_sixteen_bits_are_refused(tmp_path, capsys, monkeypatch):
    get = tiny.TinyNet.forward
    monkeypatch.setattr(tiny.TinyNet, 'forward', lambda self, images: 1e6 * get(self, images))
    assert train(write_training(tmp_path, ONLY_KD), '--teacher_views', '1') == 2
    assert 'expected the output of the teacher to be within 65504, all that 16 bits can hold' in capsys.readouterr().err


NO_EVAL = stage(1, CE + KD)
TRAINED = ALL.replace('requires_grad: False', 'requires_grad: True')
TWO_STAGES = stages(stage(1, CE + KD), stage(1, CE + KD))
COLLATED = ALL.replace("dataset_id: 'train'", "dataset_id: 'train'\n  collate_fn: 'tiny_mixup'", 1)
WRAPPED = ALL.replace(
    "dataset_id: 'train'", "dataset_id: 'train'\n  dataset_wrapper: {key: 'SSKDDatasetWrapper', kwargs: {}}", 1
)
REFUSED = {
    'the train mode of the host': (
        NO_EVAL, (), ["`train.pre_epoch_process` to be 'pre_epoch_process_with_trg'", 'got nothing', 'in train mode']),
    'a trained teacher': (TRAINED, (), ['expected a frozen teacher', '`requires_grad: False` under `train.teacher`']),
    'two stages': (TWO_STAGES, (), ['expected one stage', 'got 2 in `train`']),
    'mixed images': (COLLATED, (), ['`train.train_data_loader.collate_fn` (line 20)', 'it could mix images']),
    'a wrapper of the data set': (WRAPPED, (), ['`train.train_data_loader.dataset_wrapper` (line 20)']),
    'no view': (ALL, ('--teacher_views', '0'), ['to be 1 or more, got 0']),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_views_cannot_stand_for_is_refused_before_anything_is_written(tmp_path, capsys, name):
    text, words, parts = REFUSED[name]
    assert train(write_training(tmp_path, text), '--teacher_views', '2', *words) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    for part in parts:
        assert part in error
    assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']


@pytest.mark.parametrize(('key', 'hook', 'found'), [
    ('tiny_tuple_net', 'layer1', 'expected the output of `layer1` of the teacher to be a tensor of a row an image'),
    ('tiny_pair_net', 'layer2', 'expected the output of the teacher to be a tensor of a row an image'),
])  # fmt: skip
def test_what_is_no_tensor_is_refused(tmp_path, capsys, key, hook, found):
    hooks = "'forward_batch_only', requires_grad: False"
    text = ONLY_KD.replace(hooks, f"{hooks}, forward_hook: {{output: ['{hook}']}}")
    config = whole_yaml(tmp_path, text).replace("key: 'tiny_net'", f"key: '{key}'", 1)
    assert train(write(tmp_path, config), '--teacher_views', '1') == 2
    assert found in capsys.readouterr().err


def test_items_of_more_than_a_pair_are_refused(tmp_path, capsys, monkeypatch):
    get = tiny.Blobs.__getitem__
    monkeypatch.setattr(
        tiny.Blobs, '__getitem__', lambda self, index: (*get(self, index), *([{}] if self.noise else []))
    )
    text = ALL.replace("dataset_id: 'train'", "dataset_id: 'train'\n  requires_supp: False", 1)
    assert train(write_training(tmp_path, text), '--teacher_views', '1') == 2
    assert 'expected the items of `train.train_data_loader` (line 18) to be (image, label)' in capsys.readouterr().err


def test_without_a_teacher_and_with_several_processes(tmp_path, capsys):
    sides = "model: {forward_proc: 'forward_batch_only'}\n"
    assert train(write_training(tmp_path, stage(1, CE, sides=sides), teacher=False), '--teacher_views', '1') == 2
    assert 'expected a teacher for `--teacher_views`, got none in `models` (line ' in capsys.readouterr().err
    assert train(write_training(tmp_path, ALL), '--views_dir', 'x') == 2
    assert 'expected `--views_dir` with `--teacher_views` K, got it alone' in capsys.readouterr().err
    words = Namespace(teacher_views=1, views_dir=None)
    with pytest.raises(TRGError, match='expected one process for `--teacher_views`, got 2'):
        check_views(words, None, Processes(size=2))
