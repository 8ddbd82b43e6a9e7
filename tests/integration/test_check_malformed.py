"""`trg-torchdistill check` refuses every row of the table of malformed YAML, in the words of the loss or wrapper."""

import textwrap

import pytest
from malformed import GOOD, TABLE
from torchdistill.models.registry import MODEL_DICT

from trg_torchdistill.cli.main import main

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
    TABLE,
    ids=[f'{row[0]}: {row[1]!r} -> {row[2]!r}' for row in TABLE],
)
def test_malformed_yaml_is_refused_in_the_words_of_the_loss(
    name, line, instead, message, tmp_path, monkeypatch, capsys
):
    assert check(tmp_path, monkeypatch, name, (line, instead)) == 1
    assert message in capsys.readouterr().err
