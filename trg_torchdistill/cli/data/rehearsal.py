"""Makes loaders, optimizers and schedulers with the YAML's own arguments on stand-ins, and steps the schedulers.

torchdistill makes those of a later stage, and the loader of the test, only when it needs them, and a scheduler that
ends too early fails after hours. Classes of the user may look at the model or the data; only those of torch are made.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler
from torchdistill.core.interfaces.post_epoch_proc import default_post_epoch_process_without_teacher
from torchdistill.core.interfaces.post_forward_proc import default_post_forward_process
from torchdistill.datasets.registry import BATCH_SAMPLER_DICT, DATASET_WRAPPER_DICT
from torchdistill.datasets.util import build_data_loader
from torchdistill.optim.registry import OPTIM_DICT, SCHEDULER_DICT

from trg_torchdistill.cli.recipe.called import loaders, parameter_groups
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.keys import PROCESSES
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, explained

# Steps of a scheduler that are made one by one; of more than these only the last one follows.
MAX_STEPS = 1000
ANY_SIZE = 4096
SINGLE_IMAGES = (RandomSampler, SequentialSampler)
ONE_BATCH = {'key': 'BatchSampler', 'kwargs': {'batch_size': 1, 'drop_last': False}}


def rehearse(config: Config, device: torch.device, sizes: Mapping[str, int] | None = None) -> None:
    """Makes what a checked YAML describes; the random state is left as it was.

    Args:
        config: A YAML after :func:`~trg_torchdistill.cli.recipe.keys.check_config`, its tags under ``train:`` and
            ``test:`` carried out.
        device: Device of the training.
        sizes: Images that a process gets of each data set; None if that is not known, so that an epoch may be one step.

    Raises:
        TRGError: If a class does not take its arguments, or a scheduler does not last for the epochs.
    """
    with preserved_random_state(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        lengths = {path: _loader_length(config, path, sizes or {}) for path in loaders(config)}
        box, length = SimpleNamespace(accelerator=None, distributed=False, model=None, lr_scheduler=None), None
        for stage in config.stage_paths():
            length = lengths.get((*stage, 'train_data_loader'), length)
            if not _set_up(box, config, stage, device):
                return
            _run(box, config, stage, length)


def images_by_process(config: Config, num_processes: int) -> dict[str, int]:
    """Returns how many images one of so many processes gets in an epoch, by data set, where that has a length."""
    sizes = {}
    for key, data in config.mapping('datasets').items():
        with contextlib.suppress(Exception):  # that it tells none is found when it is read, if it is
            sizes[key] = math.ceil(len(data) / num_processes)
    return sizes


def _loader_length(config: Config, path: tuple[str, ...], sizes: Mapping[str, int]) -> int | None:
    """Makes a loader without its data set; returns its batches an epoch, None if only the real one knows them."""
    block = {**config.mapping(*path), 'requires_supp': False, 'collate_fn': None}
    sampler, batch_sampler, wrapper = block['sampler'], block.get('batch_sampler'), block.pop('dataset_wrapper', None)
    size = sizes.get(block['dataset_id'])
    places = [(*path, 'kwargs')]
    places += [(*path, name, 'kwargs') for name in ('sampler', 'batch_sampler') if config.get(*path, name, 'kwargs')]
    advice = f'change {" or ".join(config.where(*place) for place in places)}'
    with explained(f'{config.where(*path)} refused its arguments', advice):
        if not _is_known(sampler['class_or_func']):
            inspect.signature(sampler['class_or_func']).bind(None, **(sampler.get('kwargs') or {}))
            block['sampler'], size = {'class_or_func': RandomSampler}, None
        if batch_sampler and not _is_known(BATCH_SAMPLER_DICT[batch_sampler['key']]):
            block['batch_sampler'], size = ONE_BATCH, None
        if wrapper and not _is_known(DATASET_WRAPPER_DICT[wrapper['key']]):
            size = None
        loader = build_data_loader(range(size or ANY_SIZE), block, False)
        if loader.batch_sampler is None and sampler['class_or_func'] in SINGLE_IMAGES:
            where = config.where(*path, 'kwargs', 'batch_size')
            raise TRGError(f'expected {where} to be a whole number, got nothing; write how many images a batch has')
        next(iter(loader.batch_sampler if loader.num_workers > 0 else loader), None)
        return None if size is None else len(loader)


def _set_up(box: SimpleNamespace, config: Config, stage: tuple[str, ...], device: torch.device) -> bool:
    """Makes the optimizer and the scheduler of a stage as the host does; returns False if one is not of torch."""
    optimizer, scheduler = config.get(*stage, 'optimizer'), config.get(*stage, 'scheduler')
    if optimizer:
        make = OPTIM_DICT[optimizer['key']]
        if not _is_known(make):
            return False
        with explained(f'`{optimizer["key"]}` refused its arguments', _change(config, stage, 'optimizer')):
            # as many groups, with as many options, as the optimizer of the host gets
            options = [block.get('kwargs') or {} for block in optimizer.get(parameter_groups(config)) or [{}]]
            groups = [{**each, 'params': [nn.Parameter(torch.zeros(2, 2, device=device))]} for each in options]
            box.optimizer = make(groups, **optimizer['kwargs'])
        box.max_grad_norm, box.grad_accum_step = optimizer.get('max_grad_norm'), optimizer.get('grad_accum_step', 1)
        box.lr_scheduler = None
    if scheduler:
        make = SCHEDULER_DICT[scheduler['key']]
        if not _is_known(make):
            return False
        with explained(f'`{scheduler["key"]}` refused its arguments', _change(config, stage, 'scheduler')):
            box.lr_scheduler = make(box.optimizer, **scheduler['kwargs'])
        box.scheduling_step = scheduler.get('scheduling_step', 0)
    return True


def _run(box: SimpleNamespace, config: Config, stage: tuple[str, ...], length: int | None) -> None:
    """Steps the optimizer once and the scheduler as often as the stage does, if the processes are those of the host."""
    for name in ('post_forward_process', 'post_epoch_process'):
        key = config.get(*stage, name)
        if key is not None and _root_of(PROCESSES[name][0][key]) not in ('torchdistill', 'trg_torchdistill'):
            return
    with explained('the first step of the optimizer failed', _change(config, stage, 'optimizer')):
        _step(box, box.grad_accum_step, scheduling_step=0)
    if box.lr_scheduler is None:
        return
    count, every, unit = config.get(*stage, 'num_epochs'), 1, 'epoch'
    if box.scheduling_step > 0:
        every, unit = math.lcm(box.scheduling_step, box.grad_accum_step), 'scheduling step'
        count = max(count // every, 1) if length is None else count * length // every
    name, advice = type(box.lr_scheduler).__name__, _change(config, stage, 'scheduler')
    last = [count] if count > MAX_STEPS else []
    for step in (*range(1, min(count, MAX_STEPS) + 1), *last):
        with explained(f'`{name}` failed in {unit} {step}', advice):
            if step > MAX_STEPS:
                box.lr_scheduler.last_epoch = step - 1
            if box.scheduling_step > 0:
                _step(box, step * every, box.scheduling_step)
            else:
                default_post_epoch_process_without_teacher(box, metrics=0.0)


def _step(box: SimpleNamespace, number: int, scheduling_step: int) -> None:
    """Runs the host's process after the forward pass of a stage's step with that number."""
    loss = torch.stack([parameter.sum() for group in box.optimizer.param_groups for parameter in group['params']]).sum()
    own = SimpleNamespace(**{**vars(box), 'stage_grad_count': number - 1, 'scheduling_step': scheduling_step})
    default_post_forward_process(own, loss)


def _change(config: Config, stage: tuple[str, ...], name: str) -> str:
    return f'change {config.where(*stage, name, "kwargs")}'


def _is_known(target: Any) -> bool:
    return _root_of(target) in ('torch', 'torchdistill')


def _root_of(target: Any) -> str:
    return str(getattr(target, '__module__', '')).partition('.')[0]
