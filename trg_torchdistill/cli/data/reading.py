"""Reads the batches of a loader: what a data set or a ``collate_fn`` raises, here or in a worker, is one message."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

from trg_torchdistill.cli.recipe.config import Config, import_packages
from trg_torchdistill.errors import TRGError, explained, told


@dataclass(frozen=True)
class Failure:
    """What a data set or a ``collate_fn`` raised; a value, because a worker cannot send every exception.

    Attributes:
        message: For the user.
        trace: Where it was raised.
    """

    message: str
    trace: str


class Dependencies:
    """Imports the packages of a YAML where it is unpickled: a worker that was not forked knows none of them.

    Args:
        config: The YAML.
    """

    def __init__(self, config: Config) -> None:
        self.config = Config(config.path, config.text, {'dependencies': config.get('dependencies')})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        import_packages(self.config)


class Items(Dataset[Any]):
    """A data set as its loader sees it: an item that cannot be read gives a :class:`Failure` with its name.

    Every other attribute is the data set's own.

    Args:
        dependencies: What a worker imports before it unpickles the data set.
        source: The data set.
        name: What the user calls it.
    """

    def __init__(self, dependencies: Dependencies, source: Any, name: str) -> None:
        self.dependencies, self.source, self.name = dependencies, source, name

    def __reduce__(self) -> tuple[Any, ...]:
        return Items, (self.dependencies, self.source, self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['source'], name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.source[index]
        except Exception as error:
            return self._failure(index, error)

    def __getitems__(self, indices: Sequence[Any]) -> Any:
        """Returns the items of a batch, all at once where the data set can."""
        whole = getattr(self.source, '__getitems__', None)
        if callable(whole):
            try:
                return whole(indices)
            except Exception as error:
                failures = (item for item in map(self.__getitem__, indices) if isinstance(item, Failure))
                return next(failures, None) or self._failure(None, error)
        items = []
        for index in indices:
            items.append(self[index])
            if isinstance(items[-1], Failure):
                return items[-1]
        return items

    def _failure(self, index: Any, error: Exception) -> Failure:
        file = file_of(self.source, index)
        item = 'an item' if index is None else f'item {index}{"" if file is None else f", {file},"}'
        line = 'correct the data set' if file is None else 'mend or remove it'
        return _failure(f'{item} of {self.name} cannot be read', error, line)


class Collated:
    """A ``collate_fn`` that passes a :class:`Failure` on, and returns one where it fails itself.

    Args:
        collate: The one of the loader.
        name: What the user calls the data set.
    """

    def __init__(self, collate: Callable[[Any], Any], name: str) -> None:
        self.collate, self.name = collate, name

    def __call__(self, items: Any) -> Any:
        """Returns a batch."""
        if isinstance(items, Failure):
            return items
        try:
            return self.collate(items)
        except Exception as error:
            shown = describe(items[0]) if isinstance(items, list) and items else describe(items)
            line = (
                f'the first of them is {shown}; give images as tensors of one size, by a `transform:` of the data set, '
                'and labels as numbers, or a `collate_fn:` that joins such items'
            )
            return _failure(f'items of {self.name} cannot be joined to a batch', error, line)


def prepare(loader: Any, config: Config) -> None:
    """Makes a loader give a :class:`Failure` where it would raise; a second call changes nothing.

    Args:
        loader: A loader of the host.
        config: The YAML that names its data set.
    """
    if not isinstance(loader.dataset, Items):
        name = name_of(config, loader.dataset)
        # torch refuses another data set once a loader is built; this is the same one in a shell
        vars(loader)['dataset'] = Items(Dependencies(config), loader.dataset, name)
        loader.collate_fn = Collated(loader.collate_fn, name)


def read(loader: Any, config: Config) -> Iterator[Any]:
    """Yields the batches of a loader.

    Raises:
        TRGError: If one cannot be read.
    """
    prepare(loader, config)
    with explained(f'the loader of {name_of(config, loader.dataset)} failed', 'look at its `num_workers:`'):
        for batch in loader:
            yield checked(batch)


def checked(batch: Any) -> Any:
    """Returns a batch as it is.

    Raises:
        TRGError: If it is a :class:`Failure`; its cause shows where that was raised.
    """
    if isinstance(batch, Failure):
        raise TRGError(batch.message) from RuntimeError(batch.trace)
    return batch


def inner(dataset: Any) -> Any:
    """Returns the data set of the YAML inside the wrappers of the host."""
    while isinstance(dataset, Items) or hasattr(dataset, 'org_dataset'):
        dataset = dataset.source if isinstance(dataset, Items) else dataset.org_dataset
    return dataset


def name_of(config: Config, dataset: Any) -> str:
    """Returns what the user calls a data set: its key in the YAML with the line."""
    for key, known in config.mapping('datasets').items():
        if known is inner(dataset):
            return config.where('datasets', key)
    return f'a data set of {config.path}'


def file_of(dataset: Any, index: Any) -> str | None:
    """Returns the file of an item, where the data set has a list ``samples``, as torchvision's, or ``paths``."""
    dataset = inner(dataset)
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError):
        while hasattr(dataset, 'indices') and hasattr(dataset, 'dataset'):
            dataset, index = inner(dataset.dataset), dataset.indices[index]
        file = (dataset.samples if hasattr(dataset, 'samples') else dataset.paths)[index]
        file = file[0] if isinstance(file, (tuple, list)) else file
        return str(file) if isinstance(file, (str, Path)) else None
    return None


def describe(value: Any) -> str:
    """Returns the form of a value in brief, such as (Tensor [3, 32, 32], int)."""
    if isinstance(value, (tuple, list)):
        return f'({", ".join(map(describe, value[:5]))}{", ..." if len(value) > 5 else ""})'
    if isinstance(value, dict):
        return f'a dict of {", ".join(map(repr, list(value)[:5])) or "nothing"}'
    shape = getattr(value, 'shape', None)
    return f'{type(value).__name__}{"" if shape is None else f" {list(shape)}"}'


def _failure(what: str, error: Exception, line: str) -> Failure:
    message = str(error) if isinstance(error, TRGError) else f'{what}, {told(error)}; {line}'
    return Failure(message, ''.join(traceback.format_exception(error)))


def count_each_image_once(loader: Any) -> Any:
    """Returns a loader of the host for an evaluation whose processes share the images without repeating any.

    The host's ``DistributedSampler`` repeats images until all processes have equally many.

    Args:
        loader: What the host builds from a YAML; with a single process it stays as it is.
    """
    sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    if isinstance(sampler, DistributedSampler):
        sampler.shuffle, sampler.drop_last = False, False
        sampler.total_size = len(sampler.dataset)  # type: ignore[arg-type]
        sampler.num_samples = len(range(sampler.rank, sampler.total_size, sampler.num_replicas))
    return loader
