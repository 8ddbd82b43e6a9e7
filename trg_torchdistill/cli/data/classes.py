"""What a data set knows about its classes: their names, and how many images each of them has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from trg_torchdistill.datasets.labels import known_labels
from trg_torchdistill.errors import explained


def class_names(dataset: Any, num_classes: int) -> list[str]:
    """Returns the names under ``classes`` of a data set, or of the one inside it; a class without one is its number.

    Of several names for a class, as torchvision's ImageNet has them, it is the first one.
    """
    names = listed_classes(dataset)
    return [*names[:num_classes], *(str(label) for label in range(len(names), num_classes))]


def listed_classes(dataset: Any) -> list[str]:
    """Returns the names under ``classes`` of a data set, or of the one inside it, by class number; none if unknown."""
    known = _told(dataset, 'classes')
    while known is None and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
        known = _told(dataset, 'classes')
    names = known if isinstance(known, Collection) and not isinstance(known, str) else ()
    return [str(name[0] if isinstance(name, (tuple, list)) and name else name) for name in names]


def class_counts(dataset: Any) -> list[int] | None:
    """Returns the number of images of each class, from ``class_counts`` or the labels it lists; no image is read.

    Returns:
        None for a data set with neither, or with labels that are not class numbers.

    Raises:
        TRGError: If its ``class_counts`` are no numbers.
    """
    counts = _told(dataset, 'class_counts')
    if counts is not None:
        what = f'expected `class_counts` of `{type(dataset).__name__}` to be a whole number for each class'
        with explained(what, 'correct the data set'):
            return [int(count) for count in counts]
    targets = known_labels(dataset)
    if targets is None or targets.ndim != 1 or targets.is_floating_point() or (targets < 0).any():
        return None
    found: list[int] = torch.bincount(targets).tolist()
    return found


def _told(dataset: Any, name: str) -> Any:
    """Returns what a data set says of itself, None if it says nothing or its property fails."""
    try:
        return getattr(dataset, name, None)
    except Exception:
        return None
