"""`train --teacher_views`: trainings from what the teacher said once are those with the teacher in the loop."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny import (
    CE,
    KD,
    SIDES,
    TRG,
    TRG_SIDES,
    comparable,
    last_state,
    lines_of,
    stage,
    stages,
    train,
    without_times,
    write_training,
)

from trg_torchdistill.cli.train import views_making, views_store
from trg_torchdistill.cli.train.views import Views
from trg_torchdistill.cli.train.views_store import Form, Store

ALL = stage(3, CE + KD + TRG, sides=TRG_SIDES)
ONLY_KD = stage(3, CE + KD, sides=SIDES + "pre_epoch_process: 'pre_epoch_process_with_trg'\n")
SAME_IMAGES = 'size: 24, noise: 0'


@pytest.fixture
def kept_exactly(monkeypatch):
    monkeypatch.setattr(views_making, 'STORED_TYPE', torch.float32)


@pytest.mark.parametrize('text', [ALL, ONLY_KD], ids=['trg', 'kd'])
def test_views_of_equal_images_train_as_the_teacher_does(tmp_path, capsys, kept_exactly, text):
    for name, words in (('teacher', ()), ('views', ('--teacher_views', '2'))):
        assert train(write_training(tmp_path / name, text, train_kwargs=SAME_IMAGES), '--seed', '3', *words) == 0
    out = capsys.readouterr().out
    assert 'WARNING: the first two views of the images are equal' in out
    with_teacher, with_views = (lines_of(tmp_path / name) for name in ('teacher', 'views'))
    for one, other in zip(with_teacher, with_views, strict=True):
        assert other['terms'] == pytest.approx(one['terms'], rel=1e-6)
        assert other['loss'] == pytest.approx(one['loss'], rel=1e-6)
    states = [last_state(tmp_path / name)['modules'] for name in ('teacher', 'views')]
    torch.testing.assert_close(states[0]['student'], states[1]['student'], rtol=1e-5, atol=1e-6)


def test_sixteen_bits_are_close(tmp_path):
    for name, words in (('teacher', ()), ('views', ('--teacher_views', '1'))):
        assert train(write_training(tmp_path / name, ALL, train_kwargs=SAME_IMAGES), '--seed', '3', *words) == 0
    losses = [[line['loss'] for line in lines_of(tmp_path / name)] for name in ('teacher', 'views')]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[1] != losses[0]


@pytest.fixture
def interrupt(monkeypatch):
    """Lets Ctrl-C come after so many items of a class's `__getitem__`."""

    def after(cls, count):
        get, left = cls.__getitem__, [count]

        def counted(self, index):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return get(self, index)

        monkeypatch.setattr(cls, '__getitem__', counted)
        return lambda: monkeypatch.setattr(cls, '__getitem__', get)

    return after


def test_a_resume_is_exact(tmp_path, interrupt):
    words = ('--seed', '3', '--teacher_views', '3')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    long = ALL.replace('num_epochs: 3', 'num_epochs: 5')
    assert train(write_training(whole, long), *words) == 0
    config = write_training(parts, long)
    end = interrupt(Views, 60)
    assert train(config, *words) == 130
    end()
    assert last_state(parts)['progress']['epochs_done'] == 2
    assert train(config, *words, '--resume') == 0
    assert without_times(lines_of(parts)) == without_times(lines_of(whole))
    assert comparable(last_state(parts)) == comparable(last_state(whole))


def test_a_view_that_ctrl_c_stopped_is_made_anew_as_it_would_have_been(tmp_path, capsys, interrupt):
    words = ('--seed', '3', '--teacher_views', '3')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert train(write_training(whole, ALL), *words) == 0
    config = write_training(parts, ALL)
    end = interrupt(tiny.Blobs, 140)
    assert train(config, *words) == 130
    end()
    folder = parts / 'student' / 'views'
    assert sorted(path.name for path in folder.iterdir()) == ['view-0', 'view-1', 'views.json']
    assert 'the same command goes on with the next' in capsys.readouterr().out
    assert train(config, *words) == 0
    for file in sorted((whole / 'student' / 'views').rglob('*.npy')):
        assert file.read_bytes() == (folder / file.relative_to(whole / 'student' / 'views')).read_bytes()
    assert without_times(lines_of(parts)) == without_times(lines_of(whole))


@pytest.fixture
def write_taught(tmp_path):
    """Writes a YAML whose teacher has stored weights."""
    torch.manual_seed(5)
    torch.save(tiny.tiny_net(6).state_dict(), tmp_path / 'teacher.pt')

    def taught(name, text, change=('', ''), **options):
        config = Path(write_training(tmp_path / name, text, **options))
        written = config.read_text().replace(
            'width: 6}, src_ckpt: }', f"width: 6}}, src_ckpt: '{tmp_path}/teacher.pt'}}"
        )
        assert 'teacher.pt' in written
        assert change[0] in written
        config.write_text(written.replace(*change, 1) if change[0] else written)
        return str(config)

    return taught


def test_other_losses_and_seeds_share_views(tmp_path, capsys, write_taught):
    words = ('--teacher_views', '2', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught('kd', ONLY_KD), '--seed', '1', *words) == 0
    image = tmp_path / 'shared' / 'view-0' / 'image.npy'
    before = image.stat().st_mtime_ns
    assert not list((tmp_path / 'shared').rglob('feature-*'))
    assert train(write_taught('trg', ALL), '--seed', '2', *words) == 0
    assert len(list((tmp_path / 'shared').rglob('feature-layer2.output.npy'))) == 2
    capsys.readouterr()
    assert train(write_taught('kd3', ONLY_KD), '--seed', '3', *words) == 0
    assert 'all there' in capsys.readouterr().out
    assert image.stat().st_mtime_ns == before
    assert train(write_taught('alone', ALL), '--seed', '2', '--teacher_views', '2') == 0
    assert without_times(lines_of(tmp_path / 'alone')) == without_times(lines_of(tmp_path / 'trg'))


OTHERS = {
    'weights': ((), ('width: 6}', 'width: 6} '), ['`teacher_weights` was']),
    'data': ((), ('size: 24}', 'size: 30}'), ['`data.init.kwargs.size` was 24, now it is 30', '`num_images` was 24']),
    'transform': ((), ('size: 24}', 'size: 24, noise: 0.5}'), ['`data.init.kwargs.noise` was null, now it is 0.5']),
    'precision': (('--amp', 'bf16'), ('', ''), ['`amp` was null, now it is "bf16"']),
}


@pytest.mark.parametrize('name', OTHERS)
def test_views_of_something_else_are_refused_with_what_differs(tmp_path, capsys, write_taught, name):
    words, change, parts = OTHERS[name]
    shared = ('--teacher_views', '1', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught('first', ONLY_KD), *shared) == 0
    if name == 'weights':
        torch.save(tiny.tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    capsys.readouterr()
    assert train(write_taught('second', ONLY_KD, change), *shared, *words) == 2
    error = capsys.readouterr().err
    for part in ('to hold views that fit this run, got others: ', 'or name another folder with `--views_dir`', *parts):
        assert part in error
    assert not (tmp_path / 'second' / 'student').exists()


def test_other_images_behind_equal_words_are_noticed(tmp_path, capsys, write_taught, monkeypatch):
    shared = ('--teacher_views', '1', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught('first', ONLY_KD), *shared) == 0
    get = tiny.Blobs.__getitem__
    monkeypatch.setattr(tiny.Blobs, '__getitem__', lambda self, index: (2 * get(self, index)[0], get(self, index)[1]))
    assert train(write_taught('second', ONLY_KD), *shared) == 2
    assert '`items` was "' in capsys.readouterr().err


@pytest.mark.parametrize('damage', ['cut', 'other', 'facts', 'no facts'])
def test_a_damaged_store_is_refused(tmp_path, capsys, write_taught, damage):
    words, folder = ('--teacher_views', '2', '--views_dir', str(tmp_path / 'shared')), tmp_path / 'shared'
    assert train(write_taught('first', ONLY_KD), *words) == 0
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
    assert train(write_taught('second', ONLY_KD), *words) == 2
    error = capsys.readouterr().err
    assert 'remove ' in error
    assert str(folder) in error


def test_a_full_disk_is_told_before_the_first_view(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(views_store.shutil, 'disk_usage', lambda place: SimpleNamespace(free=20_000))
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


def test_every_image_goes_through_all_views_in_an_order_of_its_own():
    views = Views(None, Store(None, 50, {}), torch.float32, 4, seed=7)
    table = []
    for epoch in range(8):
        views.start_epoch(epoch)
        table.append([views.view_of(index) for index in range(50)])
    table = np.array(table)
    for turn in (table[:4], table[4:]):
        assert (np.sort(turn, axis=0) == np.arange(4)[:, None]).all()
    assert (table[:4] != table[4:]).any()
    assert len({tuple(column) for column in table.T}) > 20
    other = Views(None, Store(None, 50, {}), torch.float32, 4, seed=8)
    assert [other.view_of(index) for index in range(50)] != table[0].tolist()


@pytest.mark.parametrize('options', ['num_workers: 2', 'num_workers: 1, persistent_workers: True'])
def test_workers_read_the_views_of_the_epoch(tmp_path, options):
    words = ('--seed', '3', '--teacher_views', '2', '--views_dir', str(tmp_path / 'shared'))
    with_workers = ALL.replace('batch_size: 8, num_workers: 0', f'batch_size: 8, {options}')
    assert train(write_training(tmp_path / 'without', ALL), *words) == 0
    assert train(write_training(tmp_path / 'with', with_workers), *words) == 0
    assert without_times(lines_of(tmp_path / 'with')) == without_times(lines_of(tmp_path / 'without'))


def test_a_pickled_data_set_leaves_arrays_and_images_behind(tmp_path):
    assert train(write_training(tmp_path, ONLY_KD), '--teacher_views', '1') == 0
    folder = tmp_path / 'student' / 'views'
    store = Store(folder, 24, {name: form_of(folder, name) for name in ('image', 'label', 'logits')})
    views = Views(tiny.Blobs(24), store, torch.float32, 1, seed=0)
    first = views[5]
    copied = pickle.loads(pickle.dumps(views))
    assert len(pickle.dumps(views)) < 3000
    assert torch.equal(copied[5][0], first[0])
    assert first[1] == 5
    assert first[0].dtype == torch.float32
    assert copied.org_dataset is None


def form_of(folder, name):
    array = np.load(folder / 'view-0' / f'{name}.npy', mmap_mode='r')
    return Form(array.shape[1:], str(array.dtype))


NO_EVAL = stage(1, CE + KD)
TRAINED = ALL.replace('requires_grad: False', 'requires_grad: True')
TWO_STAGES = stages(stage(1, CE + KD), stage(1, CE + KD))
COLLATED = ALL.replace("dataset_id: 'train'", "dataset_id: 'train'\n  collate_fn: 'tiny_mixup'", 1)
WRAPPED = ALL.replace(
    "dataset_id: 'train'", "dataset_id: 'train'\n  dataset_wrapper: {key: 'TinyTriples', kwargs: {}}", 1
)
REFUSED = {
    'the train mode of the host': (
        NO_EVAL, (), ["`train.pre_epoch_process` to be 'pre_epoch_process_with_trg'", 'got nothing', 'in train mode']),
    'a trained teacher': (TRAINED, (), ['expected a frozen teacher', '`requires_grad: False` under `train.teacher`']),
    'two stages': (TWO_STAGES, (), ['expected one stage', 'got 2 in `train`']),
    'mixed images': (COLLATED, (), ['`train.train_data_loader.collate_fn` (line 18)', 'it could mix images']),
    'a wrapper of the data set': (WRAPPED, (), ['`train.train_data_loader.dataset_wrapper` (line 18)']),
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
