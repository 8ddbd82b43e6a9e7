"""What a YAML must say to be trained by several processes, and what the host leaves to do on CPUs."""

from __future__ import annotations

import inspect
from typing import Any

from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import RandomSampler
from torch.utils.data.distributed import DistributedSampler
from torchdistill.common.module_util import check_if_wrapped, get_updatable_param_names
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box

WRAPPER = 'DistributedDataParallel'


def check_for_several_processes(config: Config, reporter: Reporter) -> None:
    """Checks that a YAML wraps each model that it trains, and that its samplers can be distributed.

    torchdistill puts a ``DistributedSampler`` in the place of every sampler. That of an evaluation and a random one are
    meant so; any other, such as a weighted one, is told.

    Raises:
        TRGError: At the first model whose copies in the processes would drift apart.
    """
    for stage in config.stage_paths():
        for side in config.side_names:
            _check_wrapper(config, (*stage, side))
        for loader in ('train_data_loader', 'val_data_loader'):
            if config.get(*stage, loader) is not None:
                _check_sampler(config, (*stage, loader))
        sampler = config.get(*stage, 'train_data_loader', 'sampler', 'class_or_func')
        if sampler not in (None, RandomSampler, DistributedSampler):
            reporter.say(
                f'WARNING: with several processes torchdistill replaces '
                f'{config.where(*stage, "train_data_loader", "sampler")}, {getattr(sampler, "__name__", sampler)}, by '
                'a DistributedSampler, which shuffles'
            )
    _check_sampler(config, ('test', 'test_data_loader'))


def join_stage(box: Box, config: Config, processes: Processes) -> None:
    """Makes the stage that a box has just begun one training of all processes.

    The host wraps a model on GPUs only, so on CPUs this does. All modules get the weights and buffers of the first
    process, also a teacher with random weights, which nothing wraps.

    Raises:
        TRGError: If a parameter is trained that no process shares with the others.
    """
    stage = config.stage_paths()[box.stage - 1]
    for side in box.sides:
        model, wrapper = box.model(side), config.get(*stage, side, 'wrapper')
        kwargs = wrapper.get('kwargs', {}) if isinstance(wrapper, dict) else {}
        if _wrapper_key(wrapper) == WRAPPER and not check_if_wrapped(model) and get_updatable_param_names(model):
            kwargs = {'find_unused_parameters': box.any_frozen(side), **kwargs, 'device_ids': None}
            box.replace_model(side, DistributedDataParallel(model, **kwargs))
    _check_shared(box, config, stage)
    processes.copy_from_first(box.modules().values())


def _wrapper_key(wrapper: Any) -> Any:
    return wrapper.get('key') if isinstance(wrapper, dict) else wrapper


def _check_wrapper(config: Config, path: tuple[str, ...]) -> None:
    """Checks the block of one model in a stage, such as ``train.student``."""
    if config.get(*path, 'requires_grad') is False:
        return
    key = _wrapper_key(config.get(*path, 'wrapper'))
    where = config.where(*path, 'wrapper')
    found = 'nothing' if key is None else repr(key)
    auxiliary = config.get(*path, 'auxiliary_model_wrapper', 'key')
    if auxiliary is not None and key is not None:
        raise TRGError(
            f'expected {where} to be empty around `{auxiliary}`, which wraps its parts itself, got {found}; '
            'remove the value'
        )
    if auxiliary is None and key != WRAPPER:
        is_teacher = path[-1] == 'teacher'
        raise TRGError(
            f'expected {where} to be {WRAPPER!r} for several processes, got {found}: each would train a model of its '
            f"own; write `wrapper: '{WRAPPER}'`{', or `requires_grad: False` to freeze it,' if is_teacher else ''} "
            f'under {config.where(*path)}'
        )


def _check_sampler(config: Config, path: tuple[str, ...]) -> None:
    kwargs = config.get(*path, 'sampler', 'kwargs') or {}
    with explained(
        f'{config.where(*path, "sampler", "kwargs")} do not suit a DistributedSampler, which torchdistill builds for '
        'several processes whatever the `sampler:`',
        'write `kwargs: {}`',
    ):
        inspect.signature(DistributedSampler).bind(None, **kwargs)


def _check_shared(box: Box, config: Config, stage: tuple[str, ...]) -> None:
    """Checks that each parameter of the optimizer is in a module that averages gradients over the processes."""
    models = [box.model(side) for side in box.sides]
    parts = [part for model in models for part in model.modules() if isinstance(part, DistributedDataParallel)]
    shared = {id(parameter) for part in parts for parameter in part.parameters()}
    trained = {id(parameter) for parameter in box.trained}
    for model in models:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) in trained and id(parameter) not in shared:
                kind = type(model).__name__
                is_auxiliary = isinstance(model, AuxiliaryModelWrapper)
                advice = 'let it call `wrap_if_distributed` on that part' if is_auxiliary else 'wrap it'
                raise TRGError(
                    f'expected {config.where(*stage)} to train only what the processes share, got `{name}` of '
                    f'`{kind}`, which no DistributedDataParallel holds; {advice}, or train in one process'
                )
