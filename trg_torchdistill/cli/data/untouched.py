"""Leaves data sets and models as they were before they were tried."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


@contextlib.contextmanager
def untouched_data(loader: Any) -> Iterator[None]:
    """Gives data sets and samplers of a loader the attributes and generators back that they had before the block.

    So a data set that counts its items, draws from a generator of its own, or opens its file at the first item, which
    each worker must do for itself, is as if nothing had been read.
    """
    samplers = [part for part in (loader.sampler, loader.batch_sampler) if hasattr(part, '__dict__')]
    with _untouched([*_data_sets_in(loader.dataset), *samplers]):
        yield


@contextlib.contextmanager
def untouched_data_sets(datasets: Sequence[Any]) -> Iterator[None]:
    """Gives data sets the attributes back that they had before the block; a ``dataset_wrapper`` may take one away."""
    with _untouched(list(_data_sets_in(datasets))):
        yield


@contextlib.contextmanager
def _untouched(parts: Sequence[Any]) -> Iterator[None]:
    before = [dict(vars(part)) for part in parts]
    restorers = [_restorer(value) for attributes in before for value in attributes.values()]
    try:
        yield
    finally:
        for part, attributes in zip(parts, before, strict=True):
            vars(part).clear()
            vars(part).update(attributes)
        for restore in filter(None, restorers):
            restore()


@contextlib.contextmanager
def untouched_model(model: nn.Module, training: bool) -> Iterator[None]:
    """Puts a model in train or eval mode for a block without gradients, and gives modes and buffers back after it."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        model.train(training)
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _data_sets_in(value: Any) -> Iterator[Any]:
    if isinstance(value, Dataset):
        yield value
        for attribute in list(vars(value).values()):
            yield from _data_sets_in(attribute)
    elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Dataset):
        for part in value:
            yield from _data_sets_in(part)


def _restorer(value: Any) -> Callable[[], Any] | None:
    """Returns what gives a random generator the state back that it has now, None for anything else."""
    if isinstance(value, torch.Generator):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, np.random.RandomState):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return functools.partial(value.setstate, value.getstate())
    if isinstance(value, np.random.Generator):
        return functools.partial(setattr, value.bit_generator, 'state', value.bit_generator.state)
    return None
