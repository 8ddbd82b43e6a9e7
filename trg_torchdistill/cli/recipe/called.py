"""Finds what takes each ``kwargs:`` of a YAML: a registered class, a loader, or what an ``!import_call`` names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader
from torchdistill.common import main_util
from torchdistill.datasets import registry as datasets
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import Deferred, walk

LOADERS = ('train_data_loader', 'val_data_loader')


@dataclass(frozen=True)
class Call:
    """One call that the host makes with what stands in the YAML.

    Attributes:
        path: Path of the keywords in the YAML.
        target: Class or function, None if nothing of that name is registered.
    """

    path: tuple[Any, ...]
    target: Any


def calls(config: Config) -> Iterator[tuple[Call, dict[Any, Any]]]:
    """Yields each call whose keywords are written as a mapping, and these.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.
    """
    for call in (*module_calls(config), *_registered_calls(config)):
        keywords = config.get(*call.path)
        if call.target is not None and isinstance(keywords, dict):
            yield call, keywords
    yield from _parameter_group_calls(config)
    yield from _import_calls(config)


def module_calls(config: Config) -> Iterator[Call]:
    """Yields the calls that make losses, loss wrappers and auxiliary model wrappers."""
    criteria = {**losses.LOSS_DICT, **losses.LOW_LEVEL_LOSS_DICT, **losses.MIDDLE_LEVEL_LOSS_DICT}
    for stage in config.stage_paths():
        for path in sub_terms(config, stage):
            yield _registered(config, (*path, 'criterion'), criteria)
            yield _registered(config, (*path, 'criterion_wrapper'), losses.LOSS_WRAPPER_DICT)
        for side in config.side_names:
            wrapper = (*stage, side, 'auxiliary_model_wrapper')
            for path in (wrapper, (*wrapper, 'kwargs', 'inner')):
                yield _registered(config, path, models.AUXILIARY_MODEL_WRAPPER_DICT)


def sub_terms(config: Config, stage: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the path of each term of a stage's loss."""
    path = (*stage, 'criterion', 'kwargs', 'sub_terms')
    return [(*path, name) for name in _keys(config.get(*path))]


def loaders(config: Config) -> list[tuple[str, ...]]:
    """Returns the path of each block of a data loader."""
    found = [(*stage, name) for stage in config.stage_paths() for name in LOADERS]
    return [path for path in (*found, ('test', 'test_data_loader')) if isinstance(config.get(*path), dict)]


def _registered_calls(config: Config) -> Iterator[Call]:
    for model in config.model_paths:
        yield _registered(config, model, models.MODEL_DICT)
    for stage in config.stage_paths():
        yield _registered(config, (*stage, 'optimizer'), optim.OPTIM_DICT)
        yield _registered(config, (*stage, 'scheduler'), optim.SCHEDULER_DICT)
        for side in config.side_names:
            path = (*stage, side, 'adaptations')
            for name in _keys(config.get(*path)):
                yield _registered(config, (*path, name), {**models.MODULE_DICT, **models.ADAPTATION_MODULE_DICT})
    for path in loaders(config):
        yield Call((*path, 'kwargs'), DataLoader)
        yield _registered(config, (*path, 'batch_sampler'), datasets.BATCH_SAMPLER_DICT)
        yield _registered(config, (*path, 'dataset_wrapper'), datasets.DATASET_WRAPPER_DICT)
        sampler = config.get(*path, 'sampler', 'class_or_func')
        is_imported = isinstance(sampler, Deferred) and sampler.tag == '!import_get'
        yield Call((*path, 'sampler', 'kwargs'), _imported(sampler) if is_imported else None)


def _parameter_group_calls(config: Config) -> Iterator[tuple[Call, dict[Any, Any]]]:
    for stage in config.stage_paths():
        path = (*stage, 'optimizer', parameter_groups(config))
        target = _registered(config, (*stage, 'optimizer'), optim.OPTIM_DICT).target
        for index, block in enumerate(config.get(*path) or ()):
            if target is not None and isinstance(block, dict) and isinstance(block.get('kwargs'), dict):
                yield Call((*path, index, 'kwargs'), target), block['kwargs']


def parameter_groups(config: Config) -> str:
    """Returns the key under which the host looks for the modules that get options of their own from the optimizer."""
    return 'module_wise_kwargs' if config.teacher_path is None else 'module_wise_configs'


def _import_calls(config: Config) -> Iterator[tuple[Call, dict[Any, Any]]]:
    for section in ('datasets', 'models', 'train', 'test'):
        for path, value in walk(config.get(section), (section,)):
            keywords: Any = value.get('init', 'kwargs') if isinstance(value, Deferred) else None
            target = _imported(value) if isinstance(keywords, dict) and value.tag == '!import_call' else None
            if target is not None:
                yield Call((*path, 'init', 'kwargs'), target), keywords


def _imported(deferred: Deferred) -> Any:
    """Returns what a tag names; None if it cannot be imported, which is told where the host needs it."""
    with contextlib.suppress(Exception):
        return main_util.import_get(key=deferred.get('key'), package=deferred.get('package'))
    return None


def _registered(config: Config, path: tuple[str, ...], registry: Mapping[str, Any]) -> Call:
    key = config.get(*path, 'key')
    return Call((*path, 'kwargs'), registry.get(key) if isinstance(key, str) else None)


def _keys(block: Any) -> list[str]:
    return list(block) if isinstance(block, dict) else []
