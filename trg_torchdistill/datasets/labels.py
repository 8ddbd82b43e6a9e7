"""The labels of a data set, as it lists them or from its items."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset


def known_labels(dataset: Any) -> Tensor | None:
    """Returns the label of each item as the data set lists them, None where it lists none; no image is read.

    What a data set lists need not be what its items say: a ``target_transform`` may stand between the two.
    """
    try:
        if isinstance(dataset, Subset):
            inner = known_labels(dataset.dataset)
            return None if inner is None else inner[torch.as_tensor(dataset.indices, dtype=torch.long)]
        if isinstance(dataset, ConcatDataset):
            parts = [known_labels(part) for part in dataset.datasets]
            found = [part for part in parts if part is not None]
            return torch.cat(found) if len(found) == len(parts) else None
        if isinstance(dataset, TensorDataset):
            return dataset.tensors[-1]
        return torch.as_tensor(dataset.targets if hasattr(dataset, 'targets') else dataset.labels)
    except Exception:  # what the code of others lists need not be labels
        return None


def targets_of(dataset: Dataset[Any]) -> list[int]:
    """Returns the class of each item: what the data set lists; without that every item is read once."""
    known = known_labels(dataset)
    found = [dataset[index][1] for index in range(len(cast(Sized, dataset)))] if known is None else known.tolist()
    return [int(target) for target in found]
