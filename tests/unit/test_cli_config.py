import pytest

from trg_torchdistill.cli.recipe.config import Config, line_of, load_config
from trg_torchdistill.cli.recipe.deferred import load_deferred
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


NOT_UTF_8 = 'to be a YAML file in UTF-8, got {path} with the byte 0x{byte} on line {line}; save it in that encoding'


@pytest.mark.parametrize('load', [load_config, load_deferred])
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'to hold a mapping with `models:` and `train:`, got NoneType'),
        (b'hello', 'to hold a mapping with `models:` and `train:`, got str'),
        (b'- 1', 'to hold a mapping with `models:` and `train:`, got list'),
        ('a: 1\r\nb: café'.encode('latin-1'), NOT_UTF_8.format(path='{path}', byte='e9', line=2)),
        ('a: 1'.encode('utf-16'), NOT_UTF_8.format(path='{path}', byte='ff', line=1)),
        (b'a: 1\nb: \0', "to be valid YAML, got on line 2: the character '\\x00', which is not allowed"),
        (b'a: 1\nb: [', 'to be valid YAML, got on line 2: expected the node content'),
        (b'a: 1\nb: 2026-13-01', 'got a value that cannot be read, ValueError: month must be in 1..12'),
        (b'[' * 2000, 'got a value that cannot be read, RecursionError: maximum recursion depth'),
    ],
)
def test_a_file_that_cannot_be_read(load, content, message, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_bytes(content)
    with pytest.raises(TRGError) as error:
        load(str(path))
    assert message.format(path=path) in str(error.value)


@pytest.mark.parametrize('load', [load_config, load_deferred])
def test_no_file_is_told_with_the_folder_where_it_was_looked_for(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('no.yaml', '.'):
        with pytest.raises(TRGError) as error:
            load(path)
        assert f'got {path} (looked for in {tmp_path}), which does not exist or is no file' in str(error.value)
    with pytest.raises(TRGError, match=r'got /no\.yaml, which does not exist'):
        load('/no.yaml')


@pytest.mark.parametrize('load', [load_config, load_deferred])
def test_marks_and_line_ends_of_windows_are_read(load, tmp_path):
    (tmp_path / 'config.yaml').write_bytes('\ufeffa: é\r\nb: 2\r\n'.encode())
    config = load(str(tmp_path / 'config.yaml'))
    assert config.data == {'a': 'é', 'b': 2}
    assert config.where('b') == '`b` (line 2)'


FAILING = """\
inner: &inner !import_call {key: 'builtins.list'}
outer: !import_call
  key: 'collections.ChainMap'
  init:
    args: [*inner, CALL]
"""


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            "!import_call {key: 'operator.truediv', init: {args: [1, 0]}}",
            ' failed, ZeroDivisionError: division by zero',
        ),
        ("!import_get {key: 'operator.nothing'}", ' failed, AttributeError: '),
        ("!import_call {key: 'builtins.open', init: {kwargs: {file: 'data'}}}", '; relative paths in it start at '),
        (
            "!import_call {key: 'trg_torchdistill.datasets.Digits', init: {kwargs: {split: 'no'}}}",
            ' failed: expected `split`',
        ),
    ],
)
def test_the_tag_that_fails_is_named_with_its_line(call, message, tmp_path):
    (tmp_path / 'config.yaml').write_text(FAILING.replace('CALL', call))
    with pytest.raises(TRGError) as error:
        load_config(str(tmp_path / 'config.yaml'))
    name = call[1:].split(',')[0].replace(' {key: ', '` of ').rstrip('}')
    assert str(error.value).startswith(f'`!{name} (line 5)')
    assert message in str(error.value)
    assert 'ChainMap' not in str(error.value)


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
