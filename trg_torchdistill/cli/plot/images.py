"""The images that the pictures are made of: drawn from a data set with a seed, and shown as they looked before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill.cli.data.classes import listed_classes
from trg_torchdistill.datasets.labels import known_labels
from trg_torchdistill.errors import TRGError, explained

MAX_CLASSES = 10


@dataclass(frozen=True)
class Images:
    """Images of a data set, as the models get them.

    Attributes:
        values: Tensor [B, C, H, W].
        labels: Class of each image.
        positions: Position of each image in the data set.
        names: Name of each class that occurs.
    """

    values: Tensor
    labels: list[int]
    positions: list[int]
    names: dict[int, str]

    def take(self, chosen: Sequence[int]) -> Images:
        """Returns the images at the given places among these."""
        labels, positions = [self.labels[place] for place in chosen], [self.positions[place] for place in chosen]
        return Images(self.values[list(chosen)], labels, positions, self.names)


def read_images(dataset: Any, positions: Sequence[int]) -> Images:
    """Returns the images at the given positions of a data set.

    Raises:
        TRGError: If a position is out of range, or an item is not an image tensor and a label.
    """
    outside = [position for position in positions if not 0 <= position < len(dataset)]
    if outside:
        raise TRGError(
            f'expected `--images` to be positions in the data set, from 0 to {len(dataset) - 1}, got {outside[0]}'
        )
    values, labels = [], []
    with explained(
        'the data set did not give image tensors of one size, with labels',
        'look at its `transform:`, or name another data set with `--dataset`',
    ):
        for position in positions:
            item = dataset[position]
            values.append(item[0])
            labels.append(int(item[1]))
        stacked = torch.stack(values)
    known = dict(enumerate(listed_classes(dataset)))
    names = {label: known.get(label, str(label)) for label in sorted(set(labels))}
    return Images(stacked, labels, list(positions), names)


def draw_images(dataset: Any, count: int, seed: int) -> Images:
    """Draws images at random, from the first ten classes if the data set lists its labels."""
    labels = known_labels(dataset)
    candidates = list(range(len(dataset)))
    if labels is not None and labels.shape == (len(dataset),):
        candidates = torch.isin(labels, torch.unique(labels)[:MAX_CLASSES]).nonzero()[:, 0].tolist()
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))[:count]
    return read_images(dataset, [candidates[place] for place in order.tolist()])


def in_pairs(labels: Sequence[int], count: int) -> list[int]:
    """Chooses ``count`` images, two of a class as far as there are, so that a token may find its like.

    Returns:
        Their places, the two of a class side by side; classes in the order in which they occur.

    Example:
        >>> in_pairs([3, 5, 3, 7, 5, 3], 4)
        [0, 2, 1, 4]
    """
    pairs: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        if len(pairs.setdefault(label, [])) < 2:
            pairs[label].append(place)
    chosen = [place for pair in pairs.values() if len(pair) == 2 for place in pair]
    rest = [place for place in range(len(labels)) if place not in chosen]
    return (chosen + rest)[:count]


def as_seen(values: Tensor, dataset: Any) -> Tensor:
    """Returns images [B, H, W, 3] or [B, H, W] with values from 0 to 1.

    The ``Normalize`` of the data set's transform is undone; without one the batch is stretched from its least to its
    greatest value.
    """
    normalization = _normalization(dataset)
    images = values.float()
    if normalization is None:
        low, high = images.min(), images.max()
        images = (images - low) / (high - low).clamp_min(torch.finfo(images.dtype).eps)
    else:
        mean, std = (torch.as_tensor(part, dtype=images.dtype).view(-1, 1, 1) for part in normalization)
        images = (images * std + mean).clamp(0, 1)
    images = images.permute(0, 2, 3, 1)
    return images if images.shape[3] == 3 else images[..., 0]


def _normalization(dataset: Any) -> tuple[Any, Any] | None:
    """Mean and standard deviation of the last ``Normalize`` in the transform of a data set or of one inside it."""
    while dataset is not None:
        steps: list[Any] = [getattr(dataset, 'transform', None)]
        found = None
        while steps:
            step = steps.pop(0)
            steps = [*getattr(step, 'transforms', ()), *steps]
            if type(step).__name__ == 'Normalize':
                found = (step.mean, step.std)
        if found is not None:
            return found
        dataset = getattr(dataset, 'dataset', None)
    return None
