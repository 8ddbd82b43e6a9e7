"""`train --teacher_views`: trainings from what the teacher said once are those with the teacher in the loop."""

import pickle

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
    write_taught,
    write_training,
)
from torch.utils.data import DataLoader

from trg_torchdistill.cli.train import views_making
from trg_torchdistill.cli.train.views import Views
from trg_torchdistill.cli.train.views_store import Form, Store

pytestmark = pytest.mark.slow

ALL = stage(3, CE + KD + TRG, sides=TRG_SIDES)
ONLY_KD = stage(3, CE + KD, sides=SIDES + "pre_epoch_process: 'pre_epoch_process_with_trg'\n")
SAME_IMAGES = 'size: 24, noise: 0'


@pytest.fixture
def kept_exactly(monkeypatch):
    monkeypatch.setattr(views_making, 'STORED_TYPE', torch.float32)


@pytest.mark.parametrize('text', [ALL, ONLY_KD, stages(ALL)], ids=['trg', 'kd', 'a stage'])
def test_views_of_equal_images_train_as_the_teacher_does(tmp_path, capsys, kept_exactly, text):
    for name, words in (('teacher', ()), ('views', ('--teacher_views', '2'))):
        assert train(write_training(tmp_path / name, text, train_kwargs=SAME_IMAGES), '--seed', '3', *words) == 0
    out = capsys.readouterr().out
    assert 'WARNING: of 2 views of the teacher 1 differ: ' in out
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


def test_a_resume_is_exact(tmp_path, capsys, interrupt):
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
    capsys.readouterr()
    assert train(config, '--seed', '3', '--resume') == 0
    assert 'WARNING: this run went on with --teacher_views 3, now it is None' in capsys.readouterr().out


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


def test_other_losses_and_seeds_share_views(tmp_path, capsys):
    words = ('--teacher_views', '2', '--views_dir', str(tmp_path / 'shared'))
    assert train(write_taught(tmp_path, 'kd', ONLY_KD), '--seed', '1', *words) == 0
    image = tmp_path / 'shared' / 'view-0' / 'image.npy'
    before = image.stat().st_mtime_ns
    assert not list((tmp_path / 'shared').rglob('feature-*'))
    assert train(write_taught(tmp_path, 'trg', ALL), '--seed', '2', *words) == 0
    assert len(list((tmp_path / 'shared').rglob('feature-layer2.output.npy'))) == 2
    capsys.readouterr()
    assert train(write_taught(tmp_path, 'kd3', ONLY_KD), '--seed', '3', *words) == 0
    assert 'all there' in capsys.readouterr().out
    assert image.stat().st_mtime_ns == before
    assert train(write_taught(tmp_path, 'alone', ALL), '--seed', '2', '--teacher_views', '2') == 0
    assert without_times(lines_of(tmp_path / 'alone')) == without_times(lines_of(tmp_path / 'trg'))


def test_the_teacher_saw_the_images_that_are_stored(tmp_path):
    words = ('--teacher_views', '2', '--views_dir', str(tmp_path / 'shared'))
    for name, text in (('kd', ONLY_KD), ('trg', ALL)):  # the second adds the features of its hooks
        assert train(write_taught(tmp_path, name, text), *words) == 0
    teacher = tiny.tiny_net(6).eval()
    teacher.load_state_dict(torch.load(tmp_path / 'teacher.pt', weights_only=True))
    images = []
    for folder in (tmp_path / 'shared' / 'view-0', tmp_path / 'shared' / 'view-1'):
        found = {file.stem: torch.from_numpy(np.load(file)) for file in folder.iterdir()}
        assert {name: value.dtype for name, value in found.items()} == {
            'label': torch.int64,
            **dict.fromkeys(('image', 'logits', 'feature-layer2.output'), torch.float16),
        }
        assert found['label'].tolist() == tiny.Blobs(24).targets
        with torch.no_grad():
            image = found['image'].float()
            features = teacher.layer2(teacher.layer1(image))
        torch.testing.assert_close(found['feature-layer2.output'], features.half())
        torch.testing.assert_close(found['logits'], teacher.fc(features.mean((2, 3))).detach().half())
        images.append(image)
    noise = [image - tiny.Blobs(24).images for image in images]
    assert abs(float((noise[0] * noise[1]).mean())) < 0.05
    assert float(noise[0].square().mean()) == pytest.approx(1, abs=0.05)


def test_the_teacher_rests_in_the_epochs(tmp_path, monkeypatch):
    calls, forward = [], tiny.TinyNet.forward

    def counted(self, images):
        calls.append(self.fc.in_features)
        return forward(self, images)

    monkeypatch.setattr(tiny.TinyNet, 'forward', counted)
    counts = []
    for num_epochs in (1, 3):
        calls.clear()
        text = ALL.replace('num_epochs: 3', f'num_epochs: {num_epochs}')
        assert train(write_training(tmp_path / str(num_epochs), text), '--teacher_views', '2') == 0
        counts.append((calls.count(6), calls.count(4)))
    assert counts[0][0] == counts[1][0]
    assert counts[0][1] < counts[1][1]


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


def test_workers_change_nothing(tmp_path):
    words = ('--seed', '3', '--teacher_views', '2', '--views_dir', str(tmp_path / 'shared'))
    with_workers = ALL.replace('batch_size: 8, num_workers: 0', 'batch_size: 8, num_workers: 2')
    assert train(write_training(tmp_path / 'without', ALL), *words) == 0
    assert train(write_training(tmp_path / 'with', with_workers), *words) == 0
    assert without_times(lines_of(tmp_path / 'with')) == without_times(lines_of(tmp_path / 'without'))


@pytest.fixture
def views(tmp_path):
    """Two views of 24 images, stored by a training."""
    assert train(write_training(tmp_path, ONLY_KD), '--teacher_views', '2') == 0
    folder, forms = tmp_path / 'student' / 'views', {}
    for name in ('image', 'label', 'logits'):
        array = np.load(folder / 'view-0' / f'{name}.npy', mmap_mode='r')
        forms[name] = Form(array.shape[1:], str(array.dtype))
    return Views(tiny.Blobs(24), Store(folder, 24, forms), torch.float32, 2, seed=0)


def test_an_item_is_of_one_view(views):
    for epoch in range(2):
        views.start_epoch(epoch)
        for index in range(24):
            image, label, said = views[index]
            folder = views.store.folder / f'view-{views.view_of(index)}'
            assert torch.equal(image, torch.from_numpy(np.load(folder / 'image.npy')[index]).float())
            assert label == np.load(folder / 'label.npy')[index]
            assert torch.equal(said['teacher_view']['logits'], torch.from_numpy(np.load(folder / 'logits.npy')[index]))


def test_a_pickled_data_set_leaves_arrays_and_images_behind(views):
    image, label, _ = views[5]
    assert (image.dtype, label) == (torch.float32, 5)
    assert len(pickle.dumps(views)) < 3000
    copied = pickle.loads(pickle.dumps(views))
    assert torch.equal(copied[5][0], image)
    assert copied.org_dataset is None


def test_workers_that_live_on_read_the_views_of_the_epoch(views):
    loader = DataLoader(views, batch_size=24, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(4):
        views.start_epoch(epoch)
        ((images, _, _),) = loader
        assert torch.equal(images, torch.stack([views[index][0] for index in range(24)]))
        seen.append(images)
    assert not torch.equal(seen[0], seen[1])
