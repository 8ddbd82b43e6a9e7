"""Images of some classes: a student that saw no others is asked what its features know of those."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Subset


class OfFirstClasses(Subset[Any]):
    """The items of the first classes of a data set.

    Args:
        dataset: Has ``targets`` and ``classes``.
        num_classes: How many classes.

    Attributes:
        targets: Class of each item.
        classes: Names of the classes.
    """

    def __init__(self, dataset: Any, num_classes: int) -> None:
        super().__init__(dataset, [index for index, target in enumerate(dataset.targets) if target < num_classes])
        self.targets = [dataset.targets[index] for index in self.indices]
        self.classes = dataset.classes[:num_classes]
