"""Imports point one way, the pure layers are pure, and the files keep the house rules (read from the syntax trees)."""

import ast
import pathlib
import re
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / 'trg_torchdistill'
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob('*.py'))}
MAX_LINES = 300

# What each module may import of the package. A module that is not listed may be imported by no listed one.
ALLOWED = {'errors': set(), '_blocks': set(), '_checks': {'errors'}, 'tokens': {'errors', '_checks'}}
ALLOWED['graph'] = {*ALLOWED}
ALLOWED['functional'] = {*ALLOWED}
ALLOWED |= {'schedules': {'_checks'}, 'gather': set(), 'means': set(), 'io': {'errors', '_checks'}}
ALLOWED['losses'] = {*ALLOWED}
ALLOWED['files'] = {'errors'}
ALLOWED['wrappers'] = {*ALLOWED}
ALLOWED['host'] = {*ALLOWED}
ALLOWED['procs'] = {*ALLOWED}
ALLOWED |= {'datasets': {'errors', '_checks'}, 'models': {'errors', '_checks'}}
ALLOWED['registration'] = {*ALLOWED}
PAPER = ('errors', '_blocks', '_checks', 'tokens', 'graph', 'functional')
PURE = (*PAPER, 'means', 'schedules', 'gather', 'io')


def imported_modules(source, package='trg_torchdistill'):
    """Absolute names of everything that a module directly inside `package` imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')[: package.count('.') + 2 - node.level] if node.level else []
            base = '.'.join([*parts, node.module] if node.module else parts)
            if base == 'trg_torchdistill':
                names |= {f'{base}.{alias.name}' for alias in node.names}
            else:
                names.add(base)
    return names


def siblings(source, package='trg_torchdistill'):
    """First-level modules of the add-on that a source imports."""
    names = imported_modules(source, package)
    return {name.split('.')[1] for name in names if name.startswith('trg_torchdistill.')}


def outsiders(source):
    """Top-level packages imported from outside the package and the standard library."""
    tops = {name.split('.')[0] for name in imported_modules(source)}
    return tops - {'trg_torchdistill'} - set(sys.stdlib_module_names)


def mentions_host(source):
    """The host's name as a word of its own; the package's name does not count."""
    return re.search(r'\btorchdistill\b', source, flags=re.IGNORECASE) is not None


def forbidden_statements(source):
    """Lines of `assert` statements, bare excepts and wildcard imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f'line {node.lineno}: assert')
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f'line {node.lineno}: bare except')
        elif isinstance(node, ast.ImportFrom) and any(alias.name == '*' for alias in node.names):
            found.append(f'line {node.lineno}: wildcard import')
    return found


def _sources(module):
    """(source, package) of a module, or of every file of a subpackage; never nothing."""
    if (PACKAGE / module).is_dir():
        files = sorted((PACKAGE / module).rglob('*.py'))
        return [(path.read_text(encoding='utf-8'), f'trg_torchdistill.{module}') for path in files]
    return [((PACKAGE / f'{module}.py').read_text(encoding='utf-8'), 'trg_torchdistill')]


@pytest.mark.parametrize('module', ALLOWED)
def test_imports_point_one_way(module):
    allowed = ALLOWED[module] | ({module} if (PACKAGE / module).is_dir() else set())
    for source, package in _sources(module):
        upward = siblings(source, package) - allowed
        assert not upward, f'{module} may import {sorted(allowed)}, it also imports {sorted(upward)}'


@pytest.mark.parametrize('module', PURE)
def test_pure_layers_import_torch_and_the_standard_library_only(module):
    for source, _ in _sources(module):
        assert outsiders(source) <= {'torch'}


@pytest.mark.parametrize('module', PAPER)
def test_the_layers_of_the_paper_never_mention_the_host(module):
    for source, _ in _sources(module):
        assert not mentions_host(source)


def test_nothing_but_the_command_line_imports_the_command_line():
    plugin = [path for name, path in FILES.items() if not name.startswith('cli/') and name != '__main__.py']
    assert not [path.name for path in plugin if 'cli' in siblings(path.read_text(encoding='utf-8'))]


def test_one_file_looks_into_the_boxes_of_the_host():
    looks = re.compile(r'(has|get|set)attr\((self\.)?box\b|\bbox: Any|term_dict')
    assert [name for name, path in FILES.items() if looks.search(path.read_text(encoding='utf-8'))] == ['host.py']


@pytest.mark.parametrize('name', FILES)
def test_no_file_is_longer_than_the_budget(name):
    lines = len(FILES[name].read_text(encoding='utf-8').splitlines())
    assert lines <= MAX_LINES, f'{name} has {lines} lines; split it'


@pytest.mark.parametrize('name', FILES)
def test_no_file_asserts_swallows_everything_or_imports_a_star(name):
    assert forbidden_statements(FILES[name].read_text(encoding='utf-8')) == []


def test_the_reference_shares_nothing_with_the_package():
    source = (TESTS / 'reference.py').read_text(encoding='utf-8')
    assert imported_modules(source) == {'math', 'torch'}


@pytest.mark.parametrize('path', sorted(TESTS.rglob('*.py')), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_file_is_longer_than_the_budget(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) <= MAX_LINES


def test_the_checks_of_this_file_see_what_they_should():
    source = 'from .losses import X\nfrom . import procs\nimport trg_torchdistill.io\nfrom torch import nn\n'
    assert siblings(source) == {'losses', 'procs', 'io'}
    assert siblings('from ..procs import x\nfrom .trg import y\n', 'trg_torchdistill.losses') == {'procs', 'losses'}
    assert siblings('from .. import cli\n', 'trg_torchdistill.losses') == {'cli'}
    assert siblings('def f():\n    from trg_torchdistill import wrappers\n') == {'wrappers'}
    assert outsiders(source + 'import math\nimport torchdistill.core\n') == {'torch', 'torchdistill'}
    assert mentions_host('"""As in torchdistill."""')
    assert not mentions_host('from trg_torchdistill.tokens import Tokenizer')
    bad = 'assert x\ntry:\n    y\nexcept:\n    pass\nfrom z import *\n'
    assert len(forbidden_statements(bad)) == 3
