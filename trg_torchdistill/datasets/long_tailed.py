"""A long-tailed, or balanced and smaller, selection of any data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset

from trg_torchdistill._checks import advice, check_integer, check_positive
from trg_torchdistill.datasets.labels import targets_of
from trg_torchdistill.errors import TRGError


class LongTailed(Dataset[Any]):
    """A long-tailed (or balanced, smaller) selection of a data set, as CIFAR-LT is of CIFAR.

    Class c of C keeps n_c = n_max * imbalance^(-c / (C - 1)) images, rounded down, drawn at random with a fixed seed;
    class 0 is the most frequent one. n_max is the largest number that every class can supply: the class size, if the
    data set is balanced. ``imbalance: 1`` with ``num_samples`` gives a balanced subset.

    Args:
        dataset: Map-style data set of (input, target) with ``targets``; without it every item is read once.
        imbalance: Size of the first class over size of the last one, >= 1.
        seed: Seed of the selection.
        num_samples: Total number of images, to the same profile; None for as many as there are.

    Attributes:
        targets: Class of each item.
        classes: Names of the classes.
        class_counts: Items of each class.
        indices: Positions of the items in ``dataset``.
        transform: The one of ``dataset``, if it has one.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range, or a class cannot supply its items or
            would be left without any.

    YAML::

        datasets:
          digits/train: !import_call
            key: 'trg_torchdistill.datasets.LongTailed'
            init:
              kwargs:
                imbalance: 20
                dataset: !import_call
                  key: 'trg_torchdistill.datasets.Digits'
                  init:
                    kwargs: {split: 'train'}
    """

    def __init__(self, dataset: Dataset[Any], imbalance: float, seed: int = 0, num_samples: int | None = None) -> None:
        with advice("change it under the `kwargs:` of 'trg_torchdistill.datasets.LongTailed'"):
            is_map_style = hasattr(dataset, '__getitem__') and hasattr(dataset, '__len__')
            if not is_map_style or isinstance(dataset, (str, dict)):
                raise TRGError(
                    f'expected `dataset` to be a map-style data set (built by `!import_call`), got {dataset!r}'
                )
            check_positive('imbalance', imbalance)
            if imbalance < 1:
                raise TRGError(f'expected `imbalance` to be a number >= 1, got {imbalance}')
            check_integer('seed', seed, 0)
            if num_samples is not None:
                check_integer('num_samples', num_samples, 1)
            targets = targets_of(dataset)
            members: dict[int, list[int]] = {}
            for index, target in enumerate(targets):
                members.setdefault(target, []).append(index)
            self.classes: list[str] = list(getattr(dataset, 'classes', map(str, range(max(members, default=-1) + 1))))
            unknown = [label for label in members if not 0 <= label < len(self.classes)]
            if unknown:
                raise TRGError(
                    f'expected `dataset` to have targets from 0 to {len(self.classes) - 1}, one for each of its '
                    f'`classes`, got {unknown[0]}'
                )
            available = [len(members.get(label, ())) for label in range(len(self.classes))]
            self.class_counts = _profile(available, imbalance, num_samples)
        self.dataset = dataset
        generator = torch.Generator().manual_seed(seed)
        chosen: list[int] = []
        for label, count in enumerate(self.class_counts):
            order = torch.randperm(available[label], generator=generator).tolist()
            chosen.extend(members[label][position] for position in order[:count])
        self.indices = sorted(chosen)
        self.targets = [targets[index] for index in self.indices]

    @property
    def transform(self) -> Any:
        """The transform of the inner data set."""
        return self.dataset.transform  # type: ignore[attr-defined]

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | None) -> None:
        self.dataset.transform = transform  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


def _profile(available: list[int], imbalance: float, num_samples: int | None) -> list[int]:
    """Items to keep of each class: the exponential profile, rounded down, or to ``num_samples`` in total."""
    if not available or min(available) == 0:
        empty = available.index(0) if available else 'any'
        raise TRGError(f'expected `dataset` to have items of every class, got none of class {empty}')
    last = max(1, len(available) - 1)
    shares = [imbalance ** (-label / last) for label in range(len(available))]
    largest = min(count / share for count, share in zip(available, shares, strict=True))
    if num_samples is not None:
        largest = num_samples / sum(shares)
    exact = [largest * share for share in shares]
    counts = [math.floor(value + 1e-6) for value in exact]
    if num_samples is not None:
        by_remainder = sorted(range(len(counts)), key=lambda label: counts[label] - exact[label])
        for label in by_remainder[: num_samples - sum(counts)]:
            counts[label] += 1
    for label, (count, limit) in enumerate(zip(counts, available, strict=True)):
        if count > limit:
            raise TRGError(
                f'expected `num_samples` to need at most the {limit} items of class {label}, '
                f'got {num_samples}, which needs {count}; lower `num_samples:`'
            )
        if count == 0:
            raise TRGError(
                f'expected `imbalance` to leave items of every class, got {imbalance}, which leaves none of class '
                f'{label}; lower `imbalance:` or raise `num_samples:`'
            )
    return counts
