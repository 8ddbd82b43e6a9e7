"""Finds the keys of a YAML that nobody reads: torchdistill ignores them without a word."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
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
from trg_torchdistill.cli.recipe.nodes import MERGE, compose
from trg_torchdistill.cli.recipe.text import tag_name
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.errors import explained

EACH = '*'  # any name: of a term, of an adaptation, or of what only the one who made it knows
BUILT = dict.fromkeys(('key', 'kwargs'))
LOADER = {
    **dict.fromkeys(('dataset_id', 'collate_fn', 'kwargs', 'requires_supp', 'cache_output')),
    'dataset_wrapper': {**BUILT, 'args': None},
    'sampler': dict.fromkeys(('class_or_func', 'kwargs')),
    'batch_sampler': BUILT,
}
SIDE = {
    **dict.fromkeys(('forward_proc', 'sequential', 'wrapper', 'requires_grad', 'frozen_modules')),
    **dict.fromkeys(('src_ckpt', 'dst_ckpt')),
    'forward_hook': dict.fromkeys(('input', 'output')),
    'auxiliary_model_wrapper': {'key': None, 'kwargs': {EACH: None, 'inner': BUILT}},
    'adaptations': {EACH: BUILT},
}
TERMS = {EACH: {'criterion': BUILT, 'criterion_wrapper': BUILT, 'weight': None}}


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


def unread_keys(config: Config, task: Task) -> list[Notice]:
    """Returns a warning for each key that torchdistill does not read where it stands.

    Keys that begin with ``_`` are notes of the author (torchdistill's samples keep their anchors there).
    """
    found = list(_repeated_keys(config))
    for path, known in _strange(config.data, _schema(config, task)):
        text = '{where} is not a key that torchdistill reads there' + _hint(path, known)
        found.append(notice(config, 'unread_key', path, text))
    for call in module_calls(config):
        kwargs = config.get(*call.path)
        for name in ignored_keywords(call.target, list(kwargs) if isinstance(kwargs, dict) else []):
            text = f'{{where}}: `{config.get(*call.path[:-1], "key")}` takes any keyword and does nothing with this one'
            text += nearest(name, _named(call.target))
            found.append(notice(config, 'ignored_keyword', (*call.path, name), text))
    return found


def _repeated_keys(config: Config) -> Iterator[Notice]:
    """Yields a warning for each key of which a later one of the same block takes the place."""
    for node in compose(config.text).walk():
        for name in dict.fromkeys(node.keys):
            count = node.keys.count(name)
            if count > 1 and name != MERGE:
                key = config.text.rfind(name, 0, node.values[node.keys.index(name)].start)
                line = config.text.count('\n', 0, key) + 1
                text = f'`{name}` stands {count} times in a block (line {line}): the last one counts; remove others'
                yield Notice('repeated_key', text, line)


def ignored_keywords(target: Any, names: Collection[str]) -> list[str]:
    """Returns the keywords that a class accepts by ``**kwargs`` and, as far as its source tells, never looks at.

    Keywords that go on to another call than ``super().__init__`` count as looked at, as does a class without source.
    """
    parameters = inspect.signature(target.__init__).parameters.values() if inspect.isclass(target) else ()
    if inspect.Parameter.VAR_KEYWORD not in [parameter.kind for parameter in parameters]:
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
        what = f'{tag_name(deferred.tag, content)} under {config.where("datasets")} cannot be built'
        with explained(what, 'correct it'):
            target = main_util.import_get(key=content['key'], package=content.get('package'))
            init = content.get('init') or {}
            args, kwargs = init.get('args') or (), init.get('kwargs') or {}
            signature = _signature(target)
            if signature is not None and not isinstance(args, Deferred) and not isinstance(kwargs, Deferred):
                signature.bind(*args, **kwargs)


def _signature(target: Any) -> inspect.Signature | None:
    """Returns the signature of a class or function, None for one in C that has none."""
    try:
        return inspect.signature(target)
    except ValueError:
        return None


def _schema(config: Config, task: Task) -> dict[str, Any]:
    """Returns the keys that torchdistill reads in a YAML, each with those under it, None where any may stand."""
    paths = config.stage_paths() if isinstance(config.get('train'), dict) else [('train',)]
    stages = {path[-1]: _stage_schema(config, path) for path in paths}
    model = dict.fromkeys(('key', 'src_ckpt', 'dst_ckpt', *task.model_keys))
    models = ('model',) if config.teacher_path is None else ('teacher_model', 'student_model')
    return {
        'dependencies': None,
        'datasets': None,
        'models': dict.fromkeys(models, model),
        'train': {'log_freq': None, **stages.get('train', stages)},
        'tracker': dict.fromkeys(('engine', 'kwargs')),
        'test': {'test_data_loader': LOADER},
        **dict.fromkeys(task.sections),
    }


def _stage_schema(config: Config, stage: tuple[str, ...]) -> dict[str, Any]:
    terms: dict[str, Any] = {'model_term': None, 'sub_terms': TERMS}
    if config.get(*stage, 'criterion', 'key') != 'WeightedSumLoss':
        terms = {EACH: None, **terms}
    return {
        **dict.fromkeys(('num_epochs', *PROCESSES)),
        'train_data_loader': LOADER,
        'val_data_loader': LOADER,
        **dict.fromkeys(config.side_names, SIDE),
        'optimizer': {
            **BUILT,
            **dict.fromkeys(('filters_params', 'max_grad_norm', 'grad_accum_step', parameter_groups(config))),
        },
        'scheduler': {**BUILT, 'scheduling_step': None},
        'criterion': {'key': None, 'kwargs': terms, 'func2extract_model_loss': None},
    }


def _strange(
    block: Any, schema: Mapping[str, Any] | None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Collection[str]]]:
    """Yields the path of each key that a schema does not have, and the keys that it has there."""
    if schema is None or not isinstance(block, dict):
        return
    for key in block:
        if key not in schema and EACH not in schema and not str(key).startswith('_'):
            yield (*path, str(key)), schema
    for key, inner in schema.items():
        for name in block if key == EACH else [key]:
            yield from _strange(block.get(name), inner, (*path, str(name)))


def _hint(path: tuple[str, ...], known: Collection[str]) -> str:
    *above, key = path
    if above and above[-1].endswith('_data_loader') and key in inspect.signature(DataLoader).parameters:
        return '; an option of the loader itself stands under its `kwargs:`'
    return nearest(key, known)


def _own_classes(target: type) -> list[type]:
    return [cls for cls in target.__mro__ if cls not in (object, nn.Module)]


def _named(target: type) -> set[str]:
    """Returns the names of the arguments of a class and of those it is made from."""
    constructors = [vars(cls)['__init__'] for cls in _own_classes(target) if '__init__' in vars(cls)]
    return {name for function in constructors for name in inspect.signature(function).parameters} - {'self', 'kwargs'}
