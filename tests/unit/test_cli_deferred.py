"""What `add`, `check` and `plot` make of the tags of a YAML: nothing runs, whatever the process did before."""

import subprocess
import sys

import pytest
import yaml
from torchdistill.common import yaml_util

from trg_torchdistill.cli.recipe.deferred import Deferred, load_deferred, parse_deferred, resolve
from trg_torchdistill.errors import TRGError

CALL = "!import_call {key: 'tests.unit.test_cli_deferred.boom'}"
LOADERS = (yaml.SafeLoader, yaml.FullLoader, yaml.UnsafeLoader, yaml.Loader)
ran = []


def boom(*_):
    ran.append(True)
    return 'built'


@pytest.fixture(autouse=True)
def nothing_ran():
    ran.clear()
    yield
    assert ran == []


@pytest.fixture
def loaders(monkeypatch):
    """PyYAML's loaders, which are as before after the test."""
    for loader in LOADERS:
        monkeypatch.setattr(loader, 'yaml_constructors', dict(loader.yaml_constructors))
        monkeypatch.setattr(loader, 'yaml_multi_constructors', dict(loader.yaml_multi_constructors))
    return LOADERS


def test_tags_stay_notes_after_the_host_has_read_a_file(loaders, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('a: !join [1, 2]')
    yaml_util.load_yaml_file(str(path))
    assert '!import_call' in yaml.FullLoader.yaml_constructors
    path.write_text(f'a: {CALL}\nb: !join [x, 1]')
    data = load_deferred(str(path)).data
    assert isinstance(data['a'], Deferred)
    assert data['b'] == 'x1'


def test_tags_stay_notes_whatever_is_registered_for_them(loaders):
    for loader in loaders:
        loader.add_constructor('!import_call', boom)
        loader.add_constructor('tag:yaml.org,2002:str', boom)
        loader.add_multi_constructor('!import', boom)
        loader.add_multi_constructor('tag:yaml.org,2002:python/', boom)
    assert parse_deferred(f'a: {CALL}')['a'] == Deferred('!import_call', {'key': 'tests.unit.test_cli_deferred.boom'})


@pytest.mark.slow
def test_tags_stay_notes_where_they_were_registered_before_the_import():
    code = (
        'import yaml; from torchdistill.common import yaml_util\n'
        'for loader in (yaml.SafeLoader, yaml.FullLoader, yaml.Loader):\n'
        '    loader.add_constructor("!import_call", yaml_util.yaml_import_call)\n'
        'from trg_torchdistill.cli.recipe.deferred import parse_deferred\n'
        'print(type(parse_deferred("!import_call {key: builtins.print}")).__name__)'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout == 'Deferred\n'


@pytest.mark.parametrize('kind', ['object/apply', 'object/new', 'object', 'module'])
def test_objects_of_python_are_no_yaml_here_as_for_the_host(kind):
    text = f'a: !!python/{kind}:tests.unit.test_cli_deferred.boom []'
    for load in (parse_deferred, lambda text: yaml.load(text, yaml.FullLoader)):
        with pytest.raises(yaml.constructor.ConstructorError, match='could not determine a constructor'):
            load(text)


def test_plain_values_are_those_of_the_host(tmp_path):
    text = """
        a: [1, 0x10, 1_000, 1.5, 1e-3, .inf, yes, ~, 2026-01-02, !!binary aGk=, !!set {x}, !!str 3]
        b: !!python/tuple [1, !!python/complex 1j]
        c: [!!python/str x, !!python/bytes aGk=, !!python/long 7, !!python/none null, !!python/dict {k: 1}]
        d: &d {k: !!python/list [!!python/float 1, !!python/bool yes], e: !!python/int 2}
        f: {<<: *d, e: !join [1, 2]}
        """
    (tmp_path / 'config.yaml').write_text(text)
    assert parse_deferred(text) == yaml_util.load_yaml_file(str(tmp_path / 'config.yaml'))


def test_a_name_of_python_is_looked_up_when_it_is_needed():
    found = parse_deferred('!!python/name:collections.OrderedDict')
    assert found == Deferred('!!python/name', 'collections.OrderedDict')
    assert resolve(found, (), '').__name__ == 'OrderedDict'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            "!import_call {key: 'operator.truediv', init: {args: [1, 0]}}",
            "of 'operator.truediv' failed, ZeroDivisionError",
        ),
        ('!getattr [1, colour]', "`!getattr` failed, AttributeError: 'int' object has no attribute 'colour'; advice"),
        (
            '!access_by_index_or_key {data: {}, index_or_key: x}',
            "`!access_by_index_or_key` failed, KeyError: 'x'; advice",
        ),
        ("!import_call {key: 'builtins.open', init: {args: ['no/such']}}", 'advice; relative paths in it start at /'),
    ],
)
def test_whatever_a_tag_raises_is_told(text, message):
    with pytest.raises(TRGError) as error:
        resolve(parse_deferred(text), (), 'advice')
    assert message in str(error.value)
