"""Class-balanced sampling of a long-tailed data set, by torch's own sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset, WeightedRandomSampler

from trg_torchdistill._checks import advice, check_integer
from trg_torchdistill.datasets.labels import targets_of


def class_balanced_sampler(dataset: Dataset[Any], num_samples: int | None = None) -> WeightedRandomSampler:
    """Draws every class equally often: torch's ``WeightedRandomSampler`` with weights 1 / (items of the class).

    torchdistill calls a ``sampler:`` with the data set first, which torch's sampler does not take. Items are drawn with
    replacement. Under distributed training torchdistill puts its ``DistributedSampler`` in the place of any sampler.

    Args:
        dataset: Map-style data set that lists its labels; without them every item is read once.
        num_samples: Items of an epoch; None for the size of the data set.

    Raises:
        TRGError: If ``num_samples`` is no integer; if it is less than 1.

    YAML::

        train_data_loader:
          sampler:
            class_or_func: !import_get {key: 'trg_torchdistill.datasets.class_balanced_sampler'}
            kwargs: {}
    """
    targets = torch.tensor(targets_of(dataset))
    if num_samples is not None:
        with advice("change it under the `kwargs:` of the sampler 'trg_torchdistill.datasets.class_balanced_sampler'"):
            check_integer('num_samples', num_samples, 1)
    weights = 1 / torch.bincount(targets).double()
    return WeightedRandomSampler(weights[targets].tolist(), num_samples or len(targets))
