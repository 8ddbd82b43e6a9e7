"""Finds values of a YAML that are not what they look like: numbers that are text, words that are booleans.

torchdistill reads YAML 1.1, in which a number with an exponent needs a point and a sign (``1e-3`` is text), ``010`` is
8, ``1:30`` is 90, and ``yes``, ``no``, ``on`` and ``off`` are booleans.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from trg_torchdistill.cli.recipe.called import Call, calls, loaders, sub_terms
from trg_torchdistill.cli.recipe.config import Config, shown
from trg_torchdistill.cli.recipe.deferred import Deferred
from trg_torchdistill.errors import TRGError

TEXT, WHOLE, REAL = 'tag:yaml.org,2002:str', 'tag:yaml.org,2002:int', 'tag:yaml.org,2002:float'
# Keys for which the host itself needs a number; an `exact int` may not be written as 3.0, any other one may.
OPTIMIZER = (('max_grad_norm', 'float | None'), ('grad_accum_step', 'exact int'))
LOADER = (('batch_size', 'exact int | None'), ('num_workers', 'exact int'), ('prefetch_factor', 'exact int | None'))
NUMERIC_KEYS = {'num_epochs', 'log_freq', 'scheduling_step', 'weight', *dict(OPTIMIZER)}
# Words of an annotation or a docstring.
NUMBERS = {'int', 'float'}
OPTIONAL = {'Optional', 'None', 'NoneType'}
LISTS = {'list', 'List', 'tuple', 'Tuple', 'Sequence', 'Iterable'}
TYPING = {'Union', 'Tensor', 'torch', 'typing', 'collections', 'abc'}
BESIDE_NUMBERS = {*OPTIONAL, *LISTS, *TYPING, 'or', 'of', 'bool', 'exact'}
BOOLEANS = 'YAML 1.1 reads yes, no, on and off as booleans'


def check_values(config: Config) -> None:
    """Refuses each value of the wrong kind, before anything is built from it.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.

    Raises:
        TRGError: At the first one, with its key, its line, and how to write it.
    """
    root = yaml.compose(config.text, Loader=yaml.FullLoader)
    for section in ('datasets', 'models', 'train', 'test'):
        for key, node in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value == section:
                _check_node(node, section, False, set())
    for path, kind in _numeric_places(config):
        _check_value(config, path, config.get(*path), kind)
    for call, keywords in calls(config):
        _check_keywords(config, call, keywords)
    for loader in loaders(config):
        _check_data_set(config, loader)


def _check_node(node: yaml.Node, path: str, is_passed_on: bool, seen: set[tuple[int, bool]]) -> None:
    """Refuses plain scalars that YAML 1.1 does not read as the number they look like, where a number is meant."""
    if (id(node), is_passed_on) in seen:
        return
    seen.add((id(node), is_passed_on))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = path if key.value == '<<' else f'{path}.{key.value}'
            _check_node(value, name, is_passed_on or key.value in ('kwargs', 'args', *NUMERIC_KEYS), seen)
    elif isinstance(node, yaml.SequenceNode) and node.tag not in ('!join', '!pathjoin'):
        for index, value in enumerate(node.value):
            _check_node(value, f'{path}.{index}', is_passed_on, seen)
    elif isinstance(node, yaml.ScalarNode) and is_passed_on and node.style is None:
        found = _misread(node)
        if found is not None:
            raise TRGError(
                f'expected `{path}` (line {node.start_mark.line + 1}) to be a number, got `{node.value}`, which is '
                f"{found} in YAML 1.1; write {decimal(node.value) or f'`{found}`'}, or '{node.value}' in quotes if "
                'text is meant'
            )


def _misread(node: yaml.ScalarNode) -> str | None:
    """Returns what YAML 1.1 makes of a scalar that looks like another number, None if there is nothing to say."""
    if node.tag == TEXT and decimal(node.value) is not None:
        return 'text'
    is_octal = node.tag == WHOLE and re.fullmatch('[-+]?0[0-7_]+', node.value)
    if is_octal or (node.tag in (WHOLE, REAL) and ':' in node.value):
        return str(yaml.full_load(node.value))
    return None


def decimal(text: str) -> str | None:
    """Returns how YAML 1.1 wants the number that a text looks like, None if it looks like none.

    >>> decimal('1e-3'), decimal('1e5'), decimal('0.10'), decimal('resnet18')
    ('`1.0e-3`', '`1.0e+5` or `100000`', '`0.10`', None)
    """
    try:
        number = float(int(text, 0) if re.match('[-+]?0[xob]', text) else text)
    except (OverflowError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    if yaml.full_load(text) == number:
        return f'`{text}`'
    exponent = re.fullmatch(r'([^xe]+)e([-+]?)(\d+)', text.lower())
    forms = []
    if exponent:
        mantissa, sign, power = exponent.groups()
        forms.append(f'`{mantissa}{"" if "." in mantissa else ".0"}e{sign or "+"}{power}`')
    if number.is_integer() and abs(number) < 1e15:
        forms.append(f'`{int(number)}`')
    return ' or '.join(forms or [f'`{number}`'])


def _numeric_places(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields each path at which the host itself needs a number and something stands, and the type of the number."""
    found: list[tuple[tuple[str, ...], str]] = [(('train', 'log_freq'), 'exact int | None')]
    for stage in config.stage_paths():
        found.append(((*stage, 'num_epochs'), 'exact int'))
        found += [((*stage, 'optimizer', name), kind) for name, kind in OPTIMIZER]
        found.append(((*stage, 'scheduler', 'scheduling_step'), 'int'))
        found += [((*path, 'weight'), 'float') for path in sub_terms(config, stage)]
        found.append(((*stage, 'criterion', 'kwargs', 'model_term', 'weight'), 'float'))
    for loader in loaders(config):
        found += [((*loader, 'kwargs', name), kind) for name, kind in LOADER]
        found.append(((*loader, 'batch_sampler', 'kwargs', 'batch_size'), 'exact int'))
    for path, kind in found:
        block = config.get(*path[:-1])
        if isinstance(block, dict) and path[-1] in block:
            yield path, kind


def _check_data_set(config: Config, loader: tuple[str, ...]) -> None:
    name = config.get(*loader, 'dataset_id')
    data = config.get('datasets', name) if isinstance(name, str) else None
    if data is not None and not isinstance(data, Deferred):
        raise TRGError(
            f'expected {config.where("datasets", name)} to be a data set that a tag makes, got {data!r}; write '
            "`!import_call {key: 'PACKAGE.CLASS', init: {kwargs: {}}}`"
        )


def _check_keywords(config: Config, call: Call, keywords: dict[Any, Any]) -> None:
    for name in keywords:
        if not isinstance(name, str):
            raise TRGError(
                f'expected the keys under {config.where(*call.path)} to be names, got {name!r}; {BOOLEANS}: write the '
                'name in quotes'
            )
    for name, value in keywords.items():
        kind, is_told = _kind_of(call.target, name)
        if is_told or (isinstance(value, str) and (kind == 'bool' or decimal(value) is not None)):
            _check_value(config, (*call.path, name), value, kind)


def _kind_of(target: Any, name: str) -> tuple[str, bool]:
    """Returns the type that an argument has by its annotation, the docstring or its default, and whether it is told.

    A default alone tells no more than that text is wrong for a number or a boolean. Our own losses and wrappers name
    what they expect themselves.
    """
    try:
        parameter = inspect.signature(target).parameters[name]
    except (KeyError, TypeError, ValueError):
        return '', False
    if parameter.annotation is not parameter.empty:
        kind = inspect.formatannotation(parameter.annotation)
        is_ours = getattr(target, '__module__', '').startswith('trg_torchdistill.')
        return kind + (' | None' if parameter.default is None else ''), not is_ours
    told = re.search(rf':type {re.escape(name)}: (.+)', inspect.getdoc(target) or '')
    return (told[1], True) if told else (type(parameter.default).__name__, False)


def _check_value(config: Config, path: tuple[Any, ...], value: Any, kind: str) -> None:
    words = set(re.findall(r'\w+', kind))
    if isinstance(value, list) and words & LISTS:
        for index, item in enumerate(value):
            _check_value(config, (*path, index), item, kind)
        return
    expected = _unmet(value, words)
    if expected is None:
        return
    found, write = shown(value), f'write {expected}'
    if isinstance(value, str) and decimal(value) is not None:
        found, write = f'{value!r}, which is text', f'write {decimal(value)} without quotes'
    elif isinstance(value, dict) and path[-1] == 'weight':
        write += '; a schedule stands in the `kwargs:` of our losses, as `local_weight:`, `global_weight:` or `weight:`'
    elif isinstance(value, bool):
        found += f' ({BOOLEANS})'
        write += ' in quotes' if expected == 'text' else ''
    raise TRGError(f'expected {config.where(*path)} to be {expected}, got {found}; {write}')


def _unmet(value: Any, words: set[str]) -> str | None:
    """Returns what a value of the types in ``words`` would be, None if this may be one, or is built by a tag."""
    if words & NUMBERS and not words - NUMBERS - BESIDE_NUMBERS:
        expected = 'a number' if 'float' in words else 'a whole number'
        if value is None:
            return None if words & OPTIONAL else expected
        if isinstance(value, bool):
            return None if 'bool' in words else expected
        refused = (str, list, dict, float) if 'exact' in words else (str, list, dict)
        return expected if isinstance(value, refused) else None
    if isinstance(value, bool) and words & {'str', 'Literal'} and not words & {'bool', 'True', 'False'}:
        return 'text'
    if isinstance(value, str) and 'bool' in words and not words - OPTIONAL - {'bool'}:
        return 'true or false'
    return None
