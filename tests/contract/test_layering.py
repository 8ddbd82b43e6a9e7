"""Imports point one way, the pure layers are pure, and no file is too long (read from the syntax trees)."""

import ast
import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / 'trg_torchdistill'
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob('*.py'))}
MAX_LINES = 300

# What each module may import of the package. A module that is not listed may be imported by no listed one.
ALLOWED = {'errors': set(), '_moved': set(), '_blocks': set(), '_checks': {'errors'}, 'tokens': {'errors', '_checks'}}
ALLOWED['graph'] = {*ALLOWED}
ALLOWED['context'] = {'_blocks', '_checks', 'tokens'}
ALLOWED['functional'] = {*ALLOWED}
ALLOWED['diagnostics'] = {'tokens', 'graph', 'context', 'functional'}
ALLOWED |= {'schedules': {'errors', '_checks'}, 'gather': set(), 'means': set(), 'io': {'errors', '_checks', 'tokens'}}
ALLOWED['losses'] = {*ALLOWED}
ALLOWED['files'] = {'errors'}
ALLOWED['wrappers'] = {*ALLOWED}
ALLOWED['host'] = {*ALLOWED}
ALLOWED['procs'] = {*ALLOWED}
ALLOWED |= {'datasets': {'errors', '_checks'}, 'models': {'errors', '_checks'}}
ALLOWED['registration'] = {*ALLOWED}
PAPER = ('errors', '_blocks', '_checks', 'tokens', 'graph', 'context', 'functional')
PURE = (*PAPER, 'diagnostics', 'means', 'schedules', 'gather', 'io')

# The rooms of the command line from the ground up, and which others a room may import: all of them stand before it.
ROOMS = {'recipe': set()}
ROOMS |= {'runtime': {'recipe'}, 'data': {'recipe', 'runtime'}, 'probe': {'recipe', 'runtime'}}
ROOMS['tasks'] = {'recipe', 'runtime', 'probe'}
ROOMS['measure'] = {'recipe', 'runtime', 'data', 'probe'}
ROOMS |= {'add': {'recipe', 'runtime', 'probe', 'tasks'}, 'plot': {'recipe', 'runtime', 'data', 'probe', 'tasks'}}
ROOMS |= {'demo': {'recipe', 'runtime', 'plot'}}
ROOMS['train'] = ROOMS['eval'] = {'recipe', 'runtime', 'data', 'probe', 'tasks', 'measure'}
ROOMS['check'] = {'recipe', 'runtime', 'data', 'probe', 'tasks', 'measure', 'train', 'add'}
ROOMS['main'] = {'runtime'}


def imported_modules(source, package='trg_torchdistill'):
    """Absolute names of everything that a module directly inside `package` imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')[: package.count('.') + 2 - node.level] if node.level else []
            base = '.'.join([*parts, node.module] if node.module else parts)
            if base in ('trg_torchdistill', 'trg_torchdistill.cli'):
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


def _sources(module):
    """(source, package) of a module, or of every file of a subpackage; never nothing."""
    if (PACKAGE / module).is_dir():
        files = sorted((PACKAGE / module).rglob('*.py'))
        return [(path.read_text(encoding='utf-8'), f'trg_torchdistill.{module}') for path in files]
    return [((PACKAGE / f'{module}.py').read_text(encoding='utf-8'), 'trg_torchdistill')]


def rooms(source, package):
    """Rooms of the command line, or `main`, that a module directly inside `package` imports."""
    names = [name.split('.') for name in imported_modules(source, package)]
    return {parts[2] for parts in names if parts[:2] == ['trg_torchdistill', 'cli'] and len(parts) > 2}


def test_imports_point_one_way():
    upward = [
        (module, name)
        for module, allowed in ALLOWED.items()
        for source, package in _sources(module)
        for name in siblings(source, package) - allowed - ({module} if (PACKAGE / module).is_dir() else set())
    ]
    assert upward == []


def test_pure_layers_import_torch_and_the_standard_library_only():
    assert {module for module in PURE for source, _ in _sources(module) if outsiders(source) - {'torch'}} == set()


def test_the_layers_of_the_paper_never_mention_the_host():
    assert {module for module in PAPER for source, _ in _sources(module) if mentions_host(source)} == set()


def test_nothing_but_the_command_line_imports_the_command_line():
    plugin = [path for name, path in FILES.items() if not name.startswith('cli/') and name != '__main__.py']
    assert not [path.name for path in plugin if 'cli' in siblings(path.read_text(encoding='utf-8'))]


def test_one_file_looks_into_the_boxes_of_the_host():
    looks = re.compile(r'(has|get|set)attr\((self\.)?box\b|\bbox: Any|term_dict')
    assert [name for name, path in FILES.items() if looks.search(path.read_text(encoding='utf-8'))] == ['host.py']


def test_a_room_imports_the_rooms_of_its_row_and_no_others():
    """The table is what the code has, no more: an arrow that nobody needs any longer is taken away."""
    found = {room: set() for room in ROOMS}
    for name, path in FILES.items():
        if name.startswith('cli/') and name not in ('cli/__init__.py', 'cli/deferred.py'):
            package = '.'.join(('trg_torchdistill', *name.split('/')[:-1]))
            room = name.removesuffix('.py').split('/')[1]
            found[room] |= rooms(path.read_text(encoding='utf-8'), package) - {room}
    assert found == ROOMS


def test_the_rooms_have_no_circle():
    above = [*ROOMS]
    assert [room for room in ROOMS if ROOMS[room] - {*above[: above.index(room)]}] == []


def test_no_file_is_longer_than_the_budget():
    long = [path for path in (*FILES.values(), *TESTS.rglob('*.py')) if path.read_bytes().count(b'\n') > MAX_LINES]
    assert long == []


def test_the_reference_shares_nothing_with_the_package():
    source = (TESTS / 'reference.py').read_text(encoding='utf-8')
    assert imported_modules(source) == {'math', 'torch'}


def test_the_checks_of_this_file_see_what_they_should():
    source = 'from .losses import X\nfrom . import procs\nimport trg_torchdistill.io\nfrom torch import nn\n'
    assert siblings(source) == {'losses', 'procs', 'io'}
    assert siblings('from ..procs import x\nfrom .trg import y\n', 'trg_torchdistill.losses') == {'procs', 'losses'}
    assert siblings('from .. import cli\n', 'trg_torchdistill.losses') == {'cli'}
    assert siblings('def f():\n    from trg_torchdistill import wrappers\n') == {'wrappers'}
    assert outsiders(source + 'import math\nimport torchdistill.core\n') == {'torch', 'torchdistill'}
    assert mentions_host('"""As in torchdistill."""')
    assert not mentions_host('from trg_torchdistill.tokens import Tokenizer')
    room = 'from trg_torchdistill.cli.train.x import y\nfrom trg_torchdistill.cli import plot\nfrom ..main import z\n'
    assert rooms(room, 'trg_torchdistill.cli.eval') == {'train', 'plot', 'main'}
