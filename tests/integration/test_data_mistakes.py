"""What is wrong with the data is told before the first step, by `train` and `check --data`, and nothing changes."""

import subprocess
import sys
from pathlib import Path

import odd  # noqa: F401 (registers its models)
import pytest
import ranks
from tiny import CE, KD, QUICK, last_state, lines_of, stage, train, whole_yaml, without_times, write

from trg_torchdistill.cli.data.preflight import Findings
from trg_torchdistill.cli.main import main


def data(key, cls, **kwargs):
    """The line of `datasets:` with a data set of a class."""
    return f'{key}: !import_call {{key: {cls!r}, init: {{kwargs: {kwargs}}}}}'


TRAIN = "train: !import_call {key: 'tiny.Blobs', init: {kwargs: {size: 24}}}"
VAL = "val: !import_call {key: 'tiny.Blobs', init: {kwargs: {size: 48, noise: 0}}}"
STUDENT = "key: 'tiny_net'\n    kwargs: {width: 4}"
TEACHER = "{key: 'tiny_net', kwargs: {width: 6}"
NO_PAIR = 'to give a pair (image, label) an item, got '
NUMBERS = 'as class numbers [N], of type int64'
JOINED = 'cannot be joined to a batch, '
# data set and form of its items, and parts of the message
FORMS = {
    ('train', 'three values'): [NO_PAIR + '3 values, (Tensor [3, 8, 8], int, int)'],
    ('train', 'dict'): [NO_PAIR + "a dict of 'image', 'label'", '`dataset_wrapper:`'],
    ('val', 'dict'): [NO_PAIR + "a dict of 'image', 'label'", '`train.val_data_loader` (line 22)'],
    ('train', 'one-hot'): [NUMBERS, 'got torch.int64 [8, 6]'],
    ('val', 'one-hot'): [NUMBERS, 'got torch.int64 [16, 6]'],
    ('val', 'soft'): [NUMBERS, 'got torch.float32 [16, 6]'],
    ('val', 'column'): ['`datasets.val` (line 7)', NUMBERS, 'got torch.int64 [16, 1]'],
    ('train', 'float'): [NUMBERS, 'got torch.float64 [8]', '(Tensor [3, 8, 8], float)'],
    ('val', 'word'): [NUMBERS, 'got (str, str'],
    ('train', 'negative'): ['labels of `datasets.train` (line 6) from 0 on, got -'],
    ('train', 'beyond'): ['student `tiny_net`, which has 6', '`num_classes:` in `models.student'],
    ('val', 'beyond'): ['labels of `datasets.val` (line 7)', 'got label 8', 'to 9 or more'],
    ('train', 'picture'): [JOINED + 'TypeError', '(Image, int', '`transform:`'],
    ('train', 'grey'): ['on the images [1, 1, 8, 8] float32 of `datasets.train` (line 6)'],
    ('train', 'bytes'): ['on the images [1, 3, 8, 8] uint8 of `datasets.train` (line 6)'],
    ('val', 'sizes'): [JOINED + 'RuntimeError', 'tensors of one size'],
}
FEWER, MORE = STUDENT.replace('4}', '4, num_classes: 5}'), TEACHER.replace('6}', '6, num_classes: 9}')
UNEQUAL = ['for the term `kd` (`KDLoss`)', 'got 9 and 6']
NO_MORE_THAN_1 = ['ValueError: Expected more than 1 value', '25 images: set `drop_last: True` or another `batch_size:`']
NO_BATCH = ['`train.val_data_loader` (line', '48 images']
NO_LENGTH = ['expected `datasets.train` (line 6) to tell its number of images, RuntimeError: __len__']
FAILED = ['the sampler of `train.train_data_loader` (line 18) failed, KeyError: a key of its own']
FAILED_ON_IMAGES = ['student `Sequential` failed on the images']
MAP = ['student `Sequential` to return logits [images, classes], got [1, 6, 1, 1]']
COUNTS = ['expected `class_counts` of `Blobs` to be a whole number for each class']
# what of the YAML, what is there instead, and parts of the message
MISTAKES = {
    f'{key} {form}': (TRAIN if key == 'train' else VAL, data(key, 'odd.Odd', size=24, form=form), parts)
    for (key, form), parts in FORMS.items()
}
MISTAKES |= {
    'fewer classes': (STUDENT, FEWER, ['`models.student_model.kwargs.num_classes` (']),
    'teacher with more': (TEACHER, MORE, UNEQUAL),
    'no validation batch': ('batch_size: 16', 'batch_size: 50, drop_last: True', NO_BATCH),
    'no training image': ('size: 24', 'size: 0', ['expected `datasets.train` (line 6) to hold images']),
    'item': (VAL, data('val', 'odd.Odd', size=48, bad=3), ['item 3 of `datasets.val`']),
    'one image': (STUDENT, "key: 'pooled_net'\n    kwargs: {}", NO_MORE_THAN_1),
    'sampler': ('torch.utils.data.RandomSampler', 'odd.FailingSampler', FAILED),
    'no length': (TRAIN, data('train', 'odd.Untold', size=24, lacks='__len__'), NO_LENGTH),
    'class counts': (TRAIN, data('train', 'tiny.Blobs', size=24, counts='many'), COUNTS),
    'logits of a map': (STUDENT, "key: 'map_net'\n    kwargs: {}", MAP),
    'channels': (STUDENT, "key: 'failing_net'\n    kwargs: {step: -1}", FAILED_ON_IMAGES),
}


def yaml_of(folder, found='', replacement='', epochs=1):
    text = whole_yaml(folder, stage(epochs, CE + KD))
    assert found in text
    return write(folder, text.replace(found, replacement, 1) if found else text)


def assert_says(err, parts):
    assert [part for part in parts if part not in err] == [], err


@pytest.mark.parametrize('name', MISTAKES)
def test_train_tells_before_it_writes_anything(name, tmp_path, capsys):
    found, replacement, parts = MISTAKES[name]
    path = yaml_of(tmp_path, found, replacement)
    if name == 'one image':
        path = write(tmp_path, whole_yaml(tmp_path, stage(1, CE), train_kwargs='size: 25').replace(found, replacement))
    assert main(['train', path]) == 2
    err = capsys.readouterr().err
    assert_says(err, parts)
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']


@pytest.mark.parametrize('name', ['train dict', 'val one-hot', 'val beyond', 'no validation batch', 'item'])
def test_check_says_the_same_only_when_it_looks(name, tmp_path, capsys):
    found, replacement, parts = MISTAKES[name]
    path = yaml_of(tmp_path, found, replacement)
    assert main(['check', path, *QUICK]) == 0
    assert 'the data was not looked at' in capsys.readouterr().out
    assert main(['check', path, *QUICK, '--data']) == 1
    assert_says(capsys.readouterr().err, parts)


def test_check_looks_at_good_data(tmp_path, capsys):
    assert main(['check', yaml_of(tmp_path), *QUICK, '--data']) == 0
    assert 'train.train_data_loader: 24 images [3, 8, 8], labels from 0 to 5\n' in capsys.readouterr().out


def test_check_tells_unequal_logits_without_the_data(tmp_path, capsys):
    assert main(['check', yaml_of(tmp_path, TEACHER, MORE), *QUICK]) == 1
    assert_says(capsys.readouterr().err, UNEQUAL)


@pytest.mark.parametrize(
    ('val', 'code', 'part'),
    [
        ('acdefg', 2, "to number their classes alike, got 'c' as class 2 and 1"),
        ('uvwxyz', 0, "name the same class 'a' and 'u'"),
        ('abcdef', 0, ''),
    ],
)
def test_class_names(val, code, part, tmp_path, capsys):
    text = whole_yaml(tmp_path, stage(1, CE)).replace(TRAIN, data('train', 'odd.Odd', size=24, classes=[*'abcdef']))
    text = text.replace(VAL, data('val', 'odd.Odd', size=24, classes=[*val]))
    assert main(['train', write(tmp_path, text)]) == code
    said = ''.join(capsys.readouterr())
    assert part in said
    assert ('WARNING' in said) == bool(code == 0 and part)


def test_looking_changes_no_result(tmp_path, monkeypatch):
    own = data('train', 'odd.Odd', size=24)
    assert train(yaml_of(tmp_path / 'looked', TRAIN, own), '--seed', '3') == 0
    monkeypatch.setattr('trg_torchdistill.cli.train.command.look_at_data', lambda *_: Findings([], [], {}))
    assert train(yaml_of(tmp_path / 'not', TRAIN, own), '--seed', '3') == 0
    assert without_times(lines_of(tmp_path / 'looked')) == without_times(lines_of(tmp_path / 'not'))


@pytest.mark.parametrize('workers', [0, 2])
def test_an_item_that_cannot_be_read_stops_with_its_name(workers, tmp_path, capsys):
    path = yaml_of(tmp_path, TRAIN, data('train', 'odd.Odd', size=24, bad=20))
    text = Path(path).read_text().replace('batch_size: 8, num_workers: 0', f'batch_size: 8, num_workers: {workers}')
    text = text.replace('torch.utils.data.RandomSampler', 'torch.utils.data.SequentialSampler')
    assert main(['train', write(tmp_path, text)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    message = 'item 20 of `datasets.train` (line 6) cannot be read, OSError: image file is truncated'
    assert_says(err, [message, 'last.pt keeps'])
    assert 'Traceback' in (tmp_path / 'student' / 'error.log').read_text()
    assert last_state(tmp_path)['progress']['epochs_done'] == 0


@pytest.mark.parametrize('log', [True, False])
def test_an_error_of_a_model_is_its_own_and_its_traceback_is_kept(log, tmp_path, capsys):
    path = yaml_of(tmp_path, STUDENT, "key: 'failing_net'\n    kwargs: {step: 4}", epochs=3)
    file = tmp_path / 'run.log' if log else tmp_path / 'student' / 'error.log'
    assert train(path, *(['--run_log', str(file)] if log else [])) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert '`0` of the student (`Failing`) failed, KeyError: a key of its own' in err
    assert f'last.pt keeps the state after epoch 1 of 3; the traceback is in {file}' in err
    assert 'forward_hook' not in err
    assert "return images if self.steps_left >= 0 else {}['a key of its own']" in file.read_text()
    assert last_state(tmp_path)['progress']['epochs_done'] == 1


@pytest.mark.parametrize('lacks', ['targets', 'classes', 'all targets'])
def test_what_a_data_set_may_leave_untold(lacks, tmp_path):
    assert train(yaml_of(tmp_path, TRAIN, data('train', 'odd.Untold', size=24, lacks=lacks))) == 0


@pytest.mark.parametrize(
    ('found', 'replacement', 'part'),
    [
        (STUDENT, STUDENT.replace('tiny', 'tiny_pair'), 'to return logits, got tuple (Tensor [8, 6], Tensor [8, 4])'),
        ("reduction: 'mean'", "reduction: 'none'", 'expected the loss to be one number, got a tensor [8]'),
    ],
)
def test_a_first_step_that_fails_leaves_no_run(found, replacement, part, tmp_path, capsys):
    path = yaml_of(tmp_path, found, replacement)
    assert train(path) == 2
    assert part in capsys.readouterr().err
    assert list((tmp_path / 'student').iterdir()) == []
    yaml_of(tmp_path)
    assert train(path) == 0


@pytest.mark.slow
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_workers_that_are_not_forked(method, tmp_path):
    options = f"batch_size: 8, num_workers: 1, multiprocessing_context: '{method}'"
    path = yaml_of(tmp_path, 'batch_size: 8, num_workers: 0', options)
    words = [sys.executable, '-m', 'trg_torchdistill', 'train', path, '--device', 'cpu', '-student_only']
    done = subprocess.run(words, capture_output=True, text=True, env=ranks.environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path)) == 1
