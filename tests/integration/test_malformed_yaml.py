"""Malformed YAML through torchdistill's own machinery and `check`: what was expected, found, and what to change."""

import functools
import re
import textwrap

import pytest
import torch
import torch.distributed as dist
from host import LAYER4, TinyCnn, box_from, full_method, one_step, train_yaml, trg_term
from malformed import GOOD, TABLE
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchdistill.models.registry import MODEL_DICT

from trg_torchdistill.cli.main import main
from trg_torchdistill.errors import TRGError
from trg_torchdistill.procs import outline

ACTION = re.compile(r'\b(change|add|leave|move|set|make|give|hook|remove)\b')
EVERY_ROW = pytest.mark.parametrize(
    ('name', 'line', 'instead', 'message'), TABLE, ids=[f'{row[0]}: {row[1]!r} -> {row[2]!r}' for row in TABLE]
)
DATA = "!import_call {key: 'torchvision.datasets.FakeData', init: {kwargs: {image_size: [3, 16, 16]}}}"
WHOLE = """
dependencies: [{{name: 'trg_torchdistill'}}]
datasets: {{train: {data}, val: {data}}}
models:
  teacher_model: {{key: 'malformed_teacher', kwargs: {{}}}}
  student_model: {{key: 'malformed_student', kwargs: {{}}, dst_ckpt: 'student.pt'}}
train:
{train}
test:
  test_data_loader:
    dataset_id: 'val'
    sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: }}
    kwargs: {{batch_size: 1}}
"""


def test_the_table_is_long_enough_and_has_no_row_twice():
    assert len(TABLE) >= 75
    assert len(set(TABLE)) == len(TABLE)


@pytest.mark.parametrize('name', [name for name in GOOD if name != 'unequal'])
def test_good_yaml_runs(tmp_path, name):
    text, teacher, student = GOOD[name]
    assert one_step(box_from(tmp_path, text, teacher(), student())).isfinite()


@EVERY_ROW
def test_malformed_yaml(tmp_path, name, line, instead, message):
    text, teacher, student = GOOD[name]
    assert text.count(line) == 1, f'the good YAML has {text.count(line)} lines {line!r}'
    _assert_explained(lambda: one_step(box_from(tmp_path, text.replace(line, instead), teacher(), student())), message)


def _assert_explained(action, message):
    with pytest.raises(TRGError, match=re.escape(message)) as raised:
        action()
    text = str(raised.value)
    assert re.search('expected .*got ', text, re.DOTALL) or 'did not run' in text
    assert ACTION.search(text), f'names nothing to change: {text}'
    assert '\n' not in text
    assert len(text) < 800


def check(tmp_path, monkeypatch, name, change):
    text, teacher, student = GOOD[name]
    monkeypatch.setitem(MODEL_DICT, 'malformed_teacher', teacher)
    monkeypatch.setitem(MODEL_DICT, 'malformed_student', student)
    path = tmp_path / 'config.yaml'
    path.write_text(WHOLE.format(data=DATA, train=textwrap.indent(text.replace(*change), '  ')))
    return main(['check', str(path), '--steps', '1'])


@pytest.mark.parametrize('name', [name for name in GOOD if name != 'unequal'])
def test_good_yaml_passes_the_check(name, tmp_path, monkeypatch, capsys):
    assert check(tmp_path, monkeypatch, name, ('num_epochs', 'num_epochs')) == 0


@pytest.mark.slow
@EVERY_ROW
def test_the_check_refuses_it_in_the_words_of_the_loss(name, line, instead, message, tmp_path, monkeypatch, capsys):
    """Or, where a number is text, with its line."""
    assert check(tmp_path, monkeypatch, name, (line, instead)) == 1
    error = capsys.readouterr().err
    if 'a string in YAML' in message:
        place = rf'`train\.criterion\.\S+\.{instead.split(":")[0]}` \(line \d+\)'
        assert re.search(rf'expected {place} to be a .*number, got .*which is text', error)
    else:
        assert message in error


STALE = {'layer4': {'linear.weight': torch.zeros(12, 4), 'linear.bias': torch.zeros(12)}}
OTHER_NAME = {'layer3': {'linear.weight': torch.zeros(12, 8), 'linear.bias': torch.zeros(12)}}
HOLDS = "expected `projector_ckpt` to hold {'layer4': {'linear.weight': [12, 8], 'linear.bias': [12]}}, got "
FILES = {
    'stale': (STALE, HOLDS + "{'layer4': {'linear.weight': [12, 4], 'linear.bias': [12]}}"),
    'other projector': (OTHER_NAME, HOLDS + "{'layer3': {'linear.weight': [12, 8], 'linear.bias': [12]}}"),
    'plain state dict': (nn.Linear(2, 3).state_dict(), HOLDS),
    "a trainer's checkpoint": ({'model': nn.Linear(2, 3).state_dict(), 'best_value': 1.0, 'args': None}, HOLDS),
    'numbers': ({'layer4': {'linear.weight': 3}}, HOLDS),
    'list': ([1, 2], HOLDS),
}


@pytest.mark.parametrize(('content', 'message'), FILES.values(), ids=FILES)
def test_projector_ckpt_of_something_else(tmp_path, content, message):
    path = tmp_path / 'projectors.pt'
    torch.save(content, path)
    text = _with_ckpt(full_method(), path)
    _assert_explained(lambda: box_from(tmp_path, text), message)
    with pytest.raises(ValueError, match=f'change `projector_ckpt:` of `Student4TRG` or remove the file {path}$'):
        box_from(tmp_path, text)


def test_projector_ckpt_is_a_folder(tmp_path):
    _assert_explained(
        lambda: box_from(tmp_path, _with_ckpt(full_method(), tmp_path)),
        'expected `projector_ckpt` to be a file of projections, got ',
    )


def _with_ckpt(text, path):
    line = '      projectors:\n'
    assert text.count(line) == 1
    return text.replace(line, f"      projector_ckpt: '{path}'\n{line}")


FIXED_TEMPERATURE = full_method(top='').replace("{start: 0.5, end: 0.1, schedule: 'cosine'}", '0.1')
OUTER = (
    'expected `Student4TRG` to be the outermost module of the student, got {} around it: its projections would '
    'not run; leave `wrapper:` under `train.student` empty'
)
NOT_RUN = (
    "`TRGLoss` expected the student's `projectors.layer4` output, but the module did not run in this step; hook a "
    'module that the forward pass calls. A projector of `Student4TRG` does not run when the student is wrapped from '
    'outside: leave `train.student.wrapper:` empty, `Student4TRG` wraps its parts itself'
)


@pytest.mark.parametrize(
    ('text', 'wrap', 'message'),
    [
        (full_method(), nn.DataParallel, OUTER.format('DataParallel')),
        (FIXED_TEMPERATURE, nn.DataParallel, NOT_RUN),
        (full_method(), functools.partial(torch.compile, backend='eager'), NOT_RUN),
    ],
    ids=['with the process', 'without the process', 'compiled'],
)
def test_a_wrapper_around_the_student(tmp_path, text, wrap, message):
    """On a GPU the host wraps it for `wrapper: 'DataParallel'`; on the CPU it ignores that line."""
    box = box_from(tmp_path, text)
    box.student_model = wrap(box.student_model)
    _assert_explained(lambda: one_step(box), message)


def test_distributed_data_parallel_around_the_student(tmp_path):
    box = box_from(tmp_path, full_method())
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1)
    try:
        box.student_model = DistributedDataParallel(box.student_model)
        _assert_explained(lambda: one_step(box), OUTER.format('DistributedDataParallel'))
    finally:
        dist.destroy_process_group()


class OddCnn(TinyCnn):
    """A module `odd` that returns something else than a feature of the batch."""

    def __init__(self, function):
        super().__init__()
        self.odd = nn.Module()
        self.odd.forward = function

    def forward(self, images):
        feature = self.layer4(self.layer3(images))
        self.odd(feature)
        return self.fc(self.pool(feature))


SHAPE = "expected a 2-D, 3-D or 4-D feature for layout 'auto', got shape {}; set `layout:` and hook a module with that"
ODD = {
    'twice the batch': (lambda x: torch.cat([x, x]), 'features of the same batch size, got '),
    'half the batch': (lambda x: x[:4], 'change the module paths of `TRGLoss` to features whose first '),
    'no batch': (lambda x: x.mean(), SHAPE.format('[]')),
    'a number an image': (lambda x: x.mean((1, 2, 3)), SHAPE.format('[8]')),
    '5-D': (lambda x: x[None], SHAPE.format('[1, 8, 8, 4, 4]')),
    'nothing': (
        lambda x: None,
        "'s `odd` output to be or to hold a tensor, got NoneType; hook another module",
    ),
    'numbers': (
        lambda x: (1, 2),
        "'s `odd` output to be or to hold a tensor, got tuple; hook another module",
    ),
    'integers': (
        lambda x: x.long(),
        'expected `feature` to be a floating-point tensor of 16 bits or more, got torch.int64',
    ),
    'empty': (lambda x: x[:, :0], 'to hold values, got an empty tensor of shape [8, 0, 4, 4]'),
}


@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize(('function', 'message'), ODD.values(), ids=ODD)
def test_hooked_module_without_a_feature_of_the_batch(tmp_path, function, message, side):
    odd_hook = "forward_hook: {input: [], output: ['odd']}"
    if side == 'student':
        text = train_yaml(trg_term('odd', 'layer4'), LAYER4, odd_hook)
    else:
        text = train_yaml(trg_term('layer4', 'odd'), odd_hook, LAYER4)
    _assert_explained(lambda: one_step(box_from(tmp_path, text, OddCnn(function), OddCnn(function))), message)


@pytest.mark.parametrize('output', [None, {}, (), (1, 2), 'logits', {'loss': 1.0}], ids=repr)
def test_model_without_logits(tmp_path, output):
    model = TinyCnn()
    model.forward = lambda images: output
    message = (
        'expected `TinyCnn` to return logits, alone, as `.logits` or beside features that can be told from them, got '
        f'{outline(output)}; change `forward_proc:` of this model, or return `.logits`'
    )
    _assert_explained(lambda: one_step(box_from(tmp_path, train_yaml(), model, TinyCnn())), message)
