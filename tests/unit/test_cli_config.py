import pytest

from trg_torchdistill.cli.config import Config, line_of, load_config
from trg_torchdistill.errors import TRGError

TEXT = """\
base: &base
  a: 1
  b: {c: 2}
plain:
  - x
merged:
  <<: *base
  a: 3
built: !import_call
  key: 'builtins.dict'
  init:
"""


@pytest.mark.parametrize(
    ('path', 'line'),
    [
        (('base',), 1),
        (('base', 'b', 'c'), 3),
        (('merged', 'a'), 8),
        (('merged', 'b'), 3),
        (('built', 'key'), 10),
        (('base', 'nothing'), None),
        (('plain', 'x'), None),
    ],
)
def test_lines(path, line):
    assert line_of(TEXT, path) == line


def test_values_and_places(tmp_path):
    file = tmp_path / 'config.yaml'
    file.write_text(TEXT)
    config = load_config(str(file))
    assert config.get('merged', 'a') == 3
    assert config.get('merged', 'nothing', 'below') is None
    assert config.mapping('base', 'b') == {'c': 2}
    assert config.where('base', 'b') == '`base.b` (line 3)'
    assert config.where('nothing') == '`nothing`'
    with pytest.raises(TRGError, match=r'expected `base.a` \(line 2\) to be a mapping, got 1'):
        config.mapping('base', 'a')


@pytest.mark.parametrize('text', ['', 'hello', '- 1'])
def test_a_file_without_a_mapping(text, tmp_path):
    (tmp_path / 'config.yaml').write_text(text)
    with pytest.raises(TRGError, match='to hold a mapping with `models:` and `train:`, got'):
        load_config(str(tmp_path / 'config.yaml'))


def test_stages_and_sides():
    single = Config('c', '', {'models': {'model': {}}, 'train': {'num_epochs': 1}})
    assert single.stage_paths() == [('train',)]
    assert single.student_path == ('models', 'model')
    assert single.teacher_path is None
    assert single.side_names == ('model',)
    models = {'student_model': {}, 'teacher_model': {}}
    staged = Config('c', '', {'models': models, 'train': {'log_freq': 1, 'stage1': {}, 'stage2': {}}})
    assert staged.stage_paths() == [('train', 'stage1'), ('train', 'stage2')]
    assert staged.student_path == ('models', 'student_model')
    assert staged.teacher_path == ('models', 'teacher_model')
    assert staged.side_names == ('teacher', 'student')
