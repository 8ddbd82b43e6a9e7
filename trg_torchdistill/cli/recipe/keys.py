"""Checks a YAML before anything is built: its sections, and each key against the host's registries."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import torchvision
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchdistill.core.interfaces import registry as processes
from torchdistill.datasets import registry as datasets
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.recipe.config import Config, shown
from trg_torchdistill.errors import TRGError

PROCESSES: dict[str, tuple[Mapping[str, Any], str]] = {
    'pre_epoch_process': (processes.PRE_EPOCH_PROC_FUNC_DICT, 'pre-epoch process'),
    'pre_forward_process': (processes.PRE_FORWARD_PROC_FUNC_DICT, 'pre-forward process'),
    'post_forward_process': (processes.POST_FORWARD_PROC_FUNC_DICT, 'post-forward process'),
    'post_epoch_process': (processes.POST_EPOCH_PROC_FUNC_DICT, 'post-epoch process'),
}


def check_config(config: Config) -> None:
    """Checks sections, required values and registered keys of a torchdistill image-classification YAML.

    Call it after the packages under ``dependencies:`` were imported.

    Raises:
        TRGError: At the first mistake, with the line to change.
    """
    check_sections(config)
    check_models(config)
    check_training(config)


def check_sections(config: Config) -> None:
    """Raises TRGError unless the sections that every trainer reads are mappings."""
    for section in ('datasets', 'models', 'train', 'test'):
        config.mapping(section)


def check_training(config: Config) -> None:
    """Checks all but the models.

    Raises:
        TRGError: At the first mistake, with the line to change.
    """
    if not isinstance(config.get(*config.student_path, 'dst_ckpt'), str):
        raise TRGError(
            f'expected {config.where(*config.student_path)} to name the file of the best weights, got no `dst_ckpt:`; '
            f"add one, such as `dst_ckpt: './resource/ckpt/student.pt'`"
        )
    _check_stage_names(config)
    for position, stage in enumerate(config.stage_paths()):
        _check_stage(config, stage, first=position == 0)
    _check_loader(config, ('test', 'test_data_loader'))


def check_for_test(config: Config) -> None:
    """Checks what a test of trained models reads, like :func:`check_config`, and nothing of ``train:``.

    Raises:
        TRGError: At the first mistake, with the line to change.
    """
    for section in ('datasets', 'models', 'test'):
        config.mapping(section)
    check_models(config)
    _check_loader(config, ('test', 'test_data_loader'))


def check_registered(config: Config, path: tuple[str, ...], known: Collection[str], kind: str) -> None:
    """Raises TRGError unless the key at ``path`` is one of ``known``."""
    key = config.get(*path)
    if isinstance(key, str) and key in known:
        return
    raise TRGError(
        f'expected {config.where(*path)} to be the key of a registered {kind}, got {shown(key)}'
        f'{nearest(key, known)}; is the package that registers it named under `dependencies:`?'
    )


def check_models(config: Config, torchvision_models: ModuleType = torchvision.models) -> None:
    """Checks the blocks under ``models:``.

    Args:
        config: The YAML.
        torchvision_models: Where the host looks for a model before its own registry.

    Raises:
        TRGError: If one is not complete, or names no model that the host builds.
    """
    teacher = config.teacher_path
    for path in (config.student_path, *([] if teacher is None else [teacher])):
        config.mapping(*path)
        config.mapping(*path, 'kwargs')
        is_quantized = config.get(*path, 'quantized')
        _check_model_key(config, path, vars(torchvision.models.quantization if is_quantized else torchvision_models))


def _check_model_key(config: Config, path: tuple[str, ...], zoo: Mapping[str, Any]) -> None:
    key, where = config.get(*path, 'key'), config.where(*path, 'key')
    if not isinstance(key, str):
        raise TRGError(f'expected {where} to be the name of a model, got {shown(key)}; write one')
    if inspect.ismodule(zoo.get(key)):
        builders = [name for name in [*models.MODEL_DICT, *zoo] if name.startswith(str(key)) and name != key]
        raise TRGError(
            f'expected {where} to name a model, got {key!r}, a module of torchvision that hides any model registered '
            f'under that name{nearest(key, builders)}; use the name of a model such as `{builders[0]}`'
        )
    repository = config.get(*path, 'repo_or_dir')
    own = models.MODEL_DICT.get(key)
    if key in zoo and own not in (None, zoo[key]):
        raise TRGError(
            f'expected {where} to name one model, got {key!r}, which `{own.__module__}` registers, but of which '
            f"torchdistill takes torchvision's; register yours under a name of its own, such as "
            f"`@register_model(key='own_{key}')`, and write that"
        )
    if key in zoo and not str(repository or 'pytorch/vision').startswith('pytorch/vision'):
        raise TRGError(
            f"expected {where} to be a model of `{repository}`, got {key!r}, of which torchdistill takes torchvision's "
            f'and does not read {config.where(*path, "repo_or_dir")}; register the model under a name of its own, or '
            'remove that line'
        )
    if repository is None and key not in zoo:
        known = [*models.MODEL_DICT, *(name for name, value in zoo.items() if inspect.isfunction(value))]
        check_registered(config, (*path, 'key'), known, 'model')


def _check_stage_names(config: Config) -> None:
    names = [path[-1] for path in config.stage_paths()]
    wanted = [f'stage{number}' for number in range(1, len(names) + 1)]
    if names not in (['train'], wanted):
        raise TRGError(
            f'expected the stages under {config.where("train")} to be {", ".join(wanted)}, got '
            f'{", ".join(names)}; rename them'
        )


def _check_stage(config: Config, stage: tuple[str, ...], first: bool) -> None:
    config.mapping(*stage)
    num_epochs = config.get(*stage, 'num_epochs')
    if isinstance(num_epochs, bool) or not isinstance(num_epochs, int) or num_epochs < 1:
        raise TRGError(
            f'expected {config.where(*stage, "num_epochs")} to be an integer >= 1, got {shown(num_epochs)}; '
            f'write it under {config.where(*stage)}'
        )
    for name in ('train_data_loader', 'val_data_loader'):
        if first or config.get(*stage, name) is not None:
            _check_loader(config, (*stage, name))
    for name in config.side_names:
        _check_side(config, stage, name)
    for name, (registry, kind) in PROCESSES.items():
        if name in config.mapping(*stage):
            check_registered(config, (*stage, name), registry, kind)
    if first or config.get(*stage, 'optimizer'):
        _check_arguments(config, (*stage, 'optimizer'), optim.OPTIM_DICT, 'optimizer')
    if config.get(*stage, 'scheduler'):
        _check_arguments(config, (*stage, 'scheduler'), optim.SCHEDULER_DICT, 'scheduler')
        _check_plateau(config, (*stage, 'scheduler'))
    _check_criterion(config, (*stage, 'criterion'))


def _check_arguments(config: Config, path: tuple[str, ...], registry: Mapping[str, Any], kind: str) -> None:
    """Checks a block like :func:`_check_built`, and its ``kwargs:`` against what follows the host's own argument."""
    _check_built(config, path, registry, kind)
    try:
        inspect.signature(registry[config.get(*path, 'key')]).bind(None, **config.get(*path, 'kwargs'))
    except TypeError as error:
        raise TRGError(
            f'`{config.get(*path, "key")}` refused its arguments: {error}; change {config.where(*path, "kwargs")}'
        ) from error


def _check_plateau(config: Config, path: tuple[str, ...]) -> None:
    """Refuses a scheduler that waits for the accuracy to fall, or for an accuracy after steps, where there is none."""
    scheduler = optim.SCHEDULER_DICT[config.get(*path, 'key')]
    if not (inspect.isclass(scheduler) and issubclass(scheduler, ReduceLROnPlateau)):
        return
    mode = config.get(*path, 'kwargs', 'mode')
    if mode != 'max':
        raise TRGError(
            f"expected {config.where(*path, 'kwargs')} to have `mode: 'max'`, as `train` tells this scheduler the "
            f'validation top-1, which rises, got {shown(mode)}{"" if mode else ", which means min"}; write `mode: '
            "'max'` (torchdistill's trainer tells it nothing and fails after the first epoch)"
        )
    if (config.get(*path, 'scheduling_step') or 0) > 0:
        raise TRGError(
            f'expected {config.where(*path, "scheduling_step")} to be 0, as this scheduler follows the validation '
            f'after each epoch, got {config.get(*path, "scheduling_step")}; remove it'
        )


def _check_built(config: Config, path: tuple[str, ...], known: Collection[str], kind: str) -> None:
    """Checks a block of a registered ``key:`` and the ``kwargs:`` that the host passes on."""
    config.mapping(*path)
    check_registered(config, (*path, 'key'), known, kind)
    config.mapping(*path, 'kwargs')


def _check_side(config: Config, stage: tuple[str, ...], name: str) -> None:
    """Checks the block of one model in a stage, such as ``train.student``."""
    path = (*stage, name)
    if name == 'model' and config.get(*path) is None and config.get(*stage, 'student') is not None:
        raise TRGError(
            f'expected {config.where(*stage)} to describe its model under `model:`, got `student:`; '
            f'rename it to `model:`, or add `models.teacher_model`'
        )
    if config.get(*path, 'forward_proc') is None:
        raise TRGError(
            f'expected {config.where(*path)} to name how the model is called, got no `forward_proc:`; '
            f"add `forward_proc: 'forward_batch_only'`"
        )
    check_registered(config, (*path, 'forward_proc'), processes.FORWARD_PROC_FUNC_DICT, 'forward process')
    for block in ('auxiliary_model_wrapper', 'adaptations'):
        if config.get(*path, block) is not None:
            config.mapping(*path, block)
    if config.get(*path, 'auxiliary_model_wrapper', 'key') is not None:
        known = models.AUXILIARY_MODEL_WRAPPER_DICT
        check_registered(config, (*path, 'auxiliary_model_wrapper', 'key'), known, 'auxiliary model wrapper')
    for adaptation in config.get(*path, 'adaptations') or ():
        known = [*models.ADAPTATION_MODULE_DICT, *models.MODULE_DICT]
        _check_built(config, (*path, 'adaptations', adaptation), known, 'adaptation module')


def _check_criterion(config: Config, path: tuple[str, ...]) -> None:
    config.mapping(*path)
    check_registered(config, (*path, 'key'), losses.HIGH_LEVEL_LOSS_DICT, 'high-level loss')
    extractor = config.get(*path, 'func2extract_model_loss')
    if extractor is not None:
        known = losses.FUNC2EXTRACT_MODEL_OUTPUT_DICT
        check_registered(config, (*path, 'func2extract_model_loss'), known, 'function to extract the model loss')
    if config.get(*path, 'kwargs', 'sub_terms'):
        config.mapping(*path, 'kwargs', 'sub_terms')
    for name in config.get(*path, 'kwargs', 'sub_terms') or ():
        _check_term(config, (*path, 'kwargs', 'sub_terms', name))


def _check_term(config: Config, path: tuple[str, ...]) -> None:
    config.mapping(*path)
    if config.get(*path, 'weight') is None:
        raise TRGError(f'expected {config.where(*path)} to have a `weight:`, got nothing; add `weight: 1.0`')
    if not isinstance(config.get(*path, 'criterion'), nn.Module):
        known = [*losses.MIDDLE_LEVEL_LOSS_DICT, *losses.LOSS_DICT, *losses.LOW_LEVEL_LOSS_DICT]
        _check_built(config, (*path, 'criterion'), known, 'loss')
    if config.get(*path, 'criterion_wrapper'):
        check_registered(config, (*path, 'criterion_wrapper', 'key'), losses.LOSS_WRAPPER_DICT, 'loss wrapper')


def _check_loader(config: Config, path: tuple[str, ...]) -> None:
    config.mapping(*path)
    config.mapping(*path, 'kwargs')
    dataset_id, known = config.get(*path, 'dataset_id'), list(config.mapping('datasets'))
    if dataset_id not in known:
        raise TRGError(
            f'expected {config.where(*path, "dataset_id")} to be one of the keys under `datasets:`, {known}, '
            f'got {shown(dataset_id)}'
        )
    if config.get(*path, 'sampler', 'class_or_func') is None:
        raise TRGError(
            f'expected {config.where(*path)} to have a `sampler:` with `class_or_func:`, got nothing; add one, such as '
            f"`sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: {{}}}}`"
        )
    if config.get(*path, 'dataset_wrapper'):
        check_registered(config, (*path, 'dataset_wrapper', 'key'), datasets.DATASET_WRAPPER_DICT, 'dataset wrapper')
    if config.get(*path, 'collate_fn') is not None:
        check_registered(config, (*path, 'collate_fn'), datasets.COLLATE_FUNC_DICT, 'collate function')
    if config.get(*path, 'batch_sampler'):
        _check_arguments(config, (*path, 'batch_sampler'), datasets.BATCH_SAMPLER_DICT, 'batch sampler')
