"""The images that the pictures are made of: drawn from a data set with a seed, and shown as they looked before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.data.classes import class_names
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import resolve
from trg_torchdistill.datasets.labels import known_labels
from trg_torchdistill.errors import TRGError, explained

MAX_CLASSES = 10


@dataclass(frozen=True)
class Images:
    """Images [B, C, H, W] as the models get them, the class of each, and the names of all classes."""

    values: Tensor
    labels: list[int]
    names: list[str]

    def take(self, places: Sequence[int]) -> Images:
        """Returns those at the given places among these."""
        return Images(self.values[list(places)], [self.labels[place] for place in places], self.names)


def build_dataset(config: Config, name: str | None) -> Any:
    """Builds one data set of a YAML, by default the one of its test.

    Raises:
        TRGError: If there is no such data set, or it cannot be built.
    """
    known = config.mapping('datasets')
    key = config.get('test', 'test_data_loader', 'dataset_id') if name is None else name
    if key not in known:
        raise TRGError(
            f'expected `--dataset` to be one of the keys under `datasets:`, {list(known)}, got {key!r}'
            f'{nearest(key, list(known))}'
        )
    return resolve(known[key], (), f'look at {config.where("datasets")}')


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
    with explained(
        'the data set did not give image tensors of one size, with labels',
        'look at its `transform:`, or name another data set with `--dataset`',
    ):
        items = [dataset[position] for position in positions]
        values, labels = torch.stack([item[0] for item in items]), [int(item[1]) for item in items]
    return Images(values, labels, class_names(dataset, max(labels) + 1))


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
    places = {label: [place for place, other in enumerate(labels) if other == label] for label in labels}
    chosen = [place for of_class in places.values() if len(of_class) > 1 for place in of_class[:2]]
    rest = [place for place in range(len(labels)) if place not in chosen]
    return (chosen + rest)[:count]


def as_seen(images: Tensor, dataset: Any) -> Tensor:
    """Returns images [B, C, H, W] as [B, H, W, 3] or [B, H, W], with values from 0 to 1.

    The ``Normalize`` of the data set's transform is undone; without one the batch is stretched from its least to its
    greatest value.
    """
    images, normalization = images.float(), _normalization(dataset)
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
    found = None
    while dataset is not None and found is None:
        steps: list[Any] = [getattr(dataset, 'transform', None)]
        while steps:
            step = steps.pop(0)
            steps = [*getattr(step, 'transforms', ()), *steps]
            if type(step).__name__ == 'Normalize':
                found = (step.mean, step.std)
        dataset = getattr(dataset, 'dataset', None)
    return found
