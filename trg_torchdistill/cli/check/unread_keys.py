"""Finds the keys of a YAML that nobody reads: torchdistill ignores them without a word."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import DataLoader
from torchdistill.common import main_util

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.recipe.called import module_calls, parameter_groups
from trg_torchdistill.cli.recipe.config import Config, line_of
from trg_torchdistill.cli.recipe.deferred import Deferred, deferred_in
from trg_torchdistill.cli.recipe.keys import PROCESSES
from trg_torchdistill.cli.recipe.text import tag_name
from trg_torchdistill.errors import explained

BUILT = ('key', 'kwargs')
TOP = ('dependencies', 'datasets', 'models', 'train', 'test', 'tracker')
MODEL = (*BUILT, 'repo_or_dir', 'quantized', 'src_ckpt', 'dst_ckpt', 'sync_bn')
STAGE = ('num_epochs', 'train_data_loader', 'val_data_loader', 'optimizer', 'scheduler', 'criterion', *PROCESSES)
SIDE = (
    'forward_proc',
    'sequential',
    'forward_hook',
    'wrapper',
    'requires_grad',
    'frozen_modules',
    'auxiliary_model_wrapper',
    'adaptations',
    'src_ckpt',
    'dst_ckpt',
)
LOADER = (
    'dataset_id',
    'dataset_wrapper',
    'sampler',
    'batch_sampler',
    'collate_fn',
    'kwargs',
    'requires_supp',
    'cache_output',
)
OPTIMIZER = (*BUILT, 'filters_params', 'max_grad_norm', 'grad_accum_step')


@dataclass(frozen=True)
class Notice:
    """A warning for the user.

    Attributes:
        kind: One word for machines.
        text: What is wrong and what to change.
        line: Line of the YAML to change, None if there is none.
    """

    kind: str
    text: str
    line: int | None = None


def notice(config: Config, kind: str, path: tuple[str, ...], text: str) -> Notice:
    """Returns a warning about a place; ``{where}`` in the text becomes that place or what is around it."""
    shown = path
    while len(shown) > 1 and line_of(config.text, shown) is None:
        shown = shown[:-1]
    return Notice(kind, text.replace('{where}', config.where(*shown)), line_of(config.text, shown))


def unread_keys(config: Config) -> list[Notice]:
    """Returns a warning for each key that torchdistill does not read where it stands.

    Keys that begin with ``_`` are notes of the author (torchdistill's samples keep their anchors there).
    """
    found = []
    for path, known in _sections(config):
        block = config.get(*path) if path else config.data
        for key in block if isinstance(block, dict) else ():
            if key not in known and not str(key).startswith('_'):
                text = '{where} is not a key that torchdistill reads there'
                text += _hint(path, key, known)
                found.append(notice(config, 'unread_key', (*path, str(key)), text))
    for call in module_calls(config):
        kwargs = config.get(*call.path)
        for name in ignored_keywords(call.target, list(kwargs) if isinstance(kwargs, dict) else []):
            text = f'{{where}}: `{config.get(*call.path[:-1], "key")}` takes any keyword and does nothing with this one'
            text += nearest(name, _named(call.target))
            found.append(notice(config, 'ignored_keyword', (*call.path, name), text))
    return found


def ignored_keywords(target: Any, names: Collection[str]) -> list[str]:
    """Returns the keywords that a class accepts by ``**kwargs`` and, as far as its source tells, never looks at.

    Keywords that go on to another call than ``super().__init__`` count as looked at, as does a class without source.
    """
    if not inspect.isclass(target) or not _takes_any(target.__init__):
        return []
    try:
        source = ''.join(inspect.getsource(cls) for cls in _own_classes(target))
    except (OSError, TypeError):
        return []
    handed_on = re.findall(r'(\S+)\([^()]*\*\*kwargs\)', source)
    if any(call not in ('super().__init__', '__init__') for call in handed_on):
        return []
    named = _named(target)
    return [name for name in names if name not in named and not re.search(rf'[\'"]{re.escape(name)}[\'"]', source)]


def check_datasets(config: Config) -> None:
    """Imports what the data sets are made of and binds the arguments, without building anything.

    Raises:
        TRGError: If an object cannot be imported or does not take its arguments.
    """
    for deferred in deferred_in(config.get('datasets')):
        content = deferred.content
        if deferred.tag != '!import_call' or not isinstance(content, dict):
            continue
        with explained(
            f'{tag_name(deferred.tag, content)} under {config.where("datasets")} cannot be built', 'correct it'
        ):
            _bind(content)


def _bind(content: dict[str, Any]) -> None:
    target: Callable[..., Any] = main_util.import_get(key=content['key'], package=content.get('package'))
    init = content.get('init') or {}
    args, kwargs = init.get('args') or (), init.get('kwargs') or {}
    if isinstance(args, Deferred) or isinstance(kwargs, Deferred):
        return
    try:
        signature = inspect.signature(target)
    except ValueError:
        return
    signature.bind(*args, **kwargs)


def _sections(config: Config) -> Iterator[tuple[tuple[str, ...], Collection[str]]]:
    """Yields each mapping of fixed keys, and those keys."""
    yield (), TOP
    names = ('model',) if config.teacher_path is None else ('teacher_model', 'student_model')
    yield ('models',), names
    yield from ((('models', name), MODEL) for name in names)
    stages = config.stage_paths() if isinstance(config.get('train'), dict) else []
    if stages and stages[0] != ('train',):
        yield ('train',), ('log_freq', *(path[-1] for path in stages))
    for stage in stages:
        yield stage, (*STAGE, *config.side_names, *(('log_freq',) if stage == ('train',) else ()))
        yield from _stage_sections(config, stage)
    yield ('tracker',), ('engine', 'kwargs')
    yield ('test',), ('test_data_loader',)
    yield from _loader_sections(('test', 'test_data_loader'))


def _stage_sections(config: Config, stage: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Collection[str]]]:
    for name in ('train_data_loader', 'val_data_loader'):
        yield from _loader_sections((*stage, name))
    for name in config.side_names:
        yield (*stage, name), SIDE
        yield (*stage, name, 'forward_hook'), ('input', 'output')
        yield (*stage, name, 'auxiliary_model_wrapper'), BUILT
        for adaptation in _keys(config, (*stage, name, 'adaptations')):
            yield (*stage, name, 'adaptations', adaptation), BUILT
    yield (
        (*stage, 'optimizer'),
        (*OPTIMIZER, parameter_groups(config)),
    )
    yield (*stage, 'scheduler'), (*BUILT, 'scheduling_step')
    yield (*stage, 'criterion'), (*BUILT, 'func2extract_model_loss')
    if config.get(*stage, 'criterion', 'key') == 'WeightedSumLoss':
        yield (*stage, 'criterion', 'kwargs'), ('model_term', 'sub_terms')
    for term in _keys(config, (*stage, 'criterion', 'kwargs', 'sub_terms')):
        path = (*stage, 'criterion', 'kwargs', 'sub_terms', term)
        yield path, ('criterion', 'criterion_wrapper', 'weight')
        yield (*path, 'criterion'), BUILT
        yield (*path, 'criterion_wrapper'), BUILT


def _loader_sections(path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Collection[str]]]:
    yield path, LOADER
    yield (*path, 'dataset_wrapper'), (*BUILT, 'args')
    yield (*path, 'sampler'), ('class_or_func', 'kwargs')
    yield (*path, 'batch_sampler'), BUILT


def _keys(config: Config, path: tuple[str, ...]) -> list[str]:
    block = config.get(*path)
    return [str(key) for key in block] if isinstance(block, dict) else []


def _hint(path: tuple[str, ...], key: Any, known: Collection[str]) -> str:
    if path[-1:] and path[-1].endswith('_data_loader') and key in inspect.signature(DataLoader).parameters:
        return '; an option of the loader itself stands under its `kwargs:`'
    return nearest(key, known)


def _own_classes(target: type) -> list[type]:
    return [cls for cls in target.__mro__ if cls not in (object, nn.Module)]


def _takes_any(function: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _named(target: type) -> set[str]:
    """Returns the names of the arguments of a class and of those it is made from."""
    constructors = [vars(cls)['__init__'] for cls in _own_classes(target) if '__init__' in vars(cls)]
    return {name for function in constructors for name in inspect.signature(function).parameters} - {'self', 'kwargs'}
