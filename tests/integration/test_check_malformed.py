"""`trg-torchdistill check` refuses every row of the table of malformed YAML, in the words of the loss or wrapper."""

import re
import textwrap

import pytest
from malformed import GOOD, TABLE
from torchdistill.models.registry import MODEL_DICT

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.slow

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

TOLD_BY_THE_LOSS = [row for row in TABLE if 'a string in YAML' not in row[3]]


def check(tmp_path, monkeypatch, name, change):
    text, teacher, student = GOOD[name]
    monkeypatch.setitem(MODEL_DICT, 'malformed_teacher', teacher)
    monkeypatch.setitem(MODEL_DICT, 'malformed_student', student)
    path = tmp_path / 'config.yaml'
    path.write_text(WHOLE.format(data=DATA, train=textwrap.indent(text.replace(*change), '  ')))
    return main(['check', str(path), '--steps', '1'])


@pytest.mark.parametrize('name', [name for name in GOOD if name != 'unequal'])
def test_good_yaml_passes(name, tmp_path, monkeypatch, capsys):
    assert check(tmp_path, monkeypatch, name, ('num_epochs', 'num_epochs')) == 0


@pytest.mark.parametrize(
    ('name', 'line', 'instead', 'message'),
    TOLD_BY_THE_LOSS,
    ids=[f'{row[0]}: {row[1]!r} -> {row[2]!r}' for row in TOLD_BY_THE_LOSS],
)
def test_malformed_yaml_is_refused_in_the_words_of_the_loss(
    name, line, instead, message, tmp_path, monkeypatch, capsys
):
    assert check(tmp_path, monkeypatch, name, (line, instead)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'line', 'instead'), [row[:3] for row in TABLE if row not in TOLD_BY_THE_LOSS], ids=lambda text: repr(text)
)
def test_a_number_that_is_text_is_told_with_its_line(name, line, instead, tmp_path, monkeypatch, capsys):
    assert check(tmp_path, monkeypatch, name, (line, instead)) == 1
    key = instead.split(':')[0]
    assert re.search(
        rf'expected `train\.criterion\.\S+\.{key}` \(line \d+\) to be a .*number, got .*which is text',
        capsys.readouterr().err,
    )
