"""What a batch must be for the trainer, and its labels for the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from trg_torchdistill.cli.data.classes import listed_classes
from trg_torchdistill.cli.data.reading import describe, inner
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.datasets.labels import known_labels
from trg_torchdistill.errors import TRGError

IGNORED_LABEL = -100  # torch's cross-entropy leaves it out


@dataclass(frozen=True)
class Sample:
    """The first batch of a loader.

    Attributes:
        config: The YAML.
        path: Of the loader in the YAML.
        name: Of its data set, for the user.
        loader: The loader.
        indices: Of the images.
        item: The first of the items that make the batch.
        batch: Images, labels and, for training, supplementary values.
    """

    config: Config
    path: tuple[str, ...]
    name: str
    loader: Any
    indices: Sequence[Any]
    item: Any
    batch: Any

    @property
    def trains(self) -> bool:
        """Whether it is a training loader."""
        return self.path[-1] == 'train_data_loader'

    def of_side(self, side: str, *keys: str) -> Any:
        """Returns what the loader's stage says of the model of a side."""
        return self.config.get(*self.path[:-1], 'model' if self.config.teacher_path is None else side, *keys)

    @cached_property
    def listed_labels(self) -> Tensor | None:
        """Labels of all images, where the data set lists them, the batch has those, and the sampler takes all."""
        listed, labels = known_labels(inner(self.loader.dataset)), self.batch[1].cpu()
        sampler = getattr(self.loader.batch_sampler, 'sampler', self.loader.sampler)
        if type(sampler) not in (RandomSampler, SequentialSampler, DistributedSampler):
            return None
        if listed is None or listed.shape[:1] != (len(self.loader.dataset),):
            return None
        own = listed[torch.as_tensor(self.indices)]
        return listed if own.shape == labels.shape and bool((own == labels).all()) else None

    @property
    def labels(self) -> Tensor:
        """Labels of all images, or else those of the batch."""
        return self.batch[1] if self.listed_labels is None else self.listed_labels


def no_pair(config: Config, path: tuple[str, ...], name: str, item: Any) -> TRGError:
    """Returns the error about items of a data set that do not make a batch for the loader at ``path``."""
    count = f'{len(item)} values, ' if isinstance(item, (tuple, list)) else ''
    wanted, also = '(image, label)', ''
    if path[-1] == 'train_data_loader':
        wanted, also = '(image, label, {})', 'with `requires_supp: False` '
    return TRGError(
        f'expected {name} to give a pair (image, label) an item, got {count}{describe(item)}; correct the data set, or '
        f'give {config.where(*path)} a `dataset_wrapper:`, or {also}a `collate_fn:`, that makes {wanted} of such items'
    )


def check_batch(sample: Sample) -> None:
    """Checks the form of a batch; training also takes class probabilities [N, C] as labels, as MixUp makes them.

    Raises:
        TRGError: If the trainer cannot use it.
    """
    batch, trains = sample.batch, sample.trains
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or (trains and len(batch) != 3):
        raise no_pair(sample.config, sample.path, sample.name, sample.item)
    images, labels = batch[:2]
    if not hasattr(images, 'to'):
        raise TRGError(
            f'expected images of {sample.name} to be tensors, got {describe(images)}; end the `transform:` of that '
            "data set with 'torchvision.transforms.ToTensor'"
        )
    is_tensor = isinstance(labels, Tensor)
    is_soft = is_tensor and trains and labels.ndim == 2 and labels.is_floating_point()
    kinds = (torch.int64, torch.uint8) if trains else (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not is_soft and not (is_tensor and labels.ndim == 1 and labels.dtype in kinds):
        found = f'{labels.dtype} {list(labels.shape)}' if is_tensor else describe(labels)
        also = ', or as class probabilities [N, C]' if trains else ''
        raise TRGError(
            f'expected labels of {sample.name} as class numbers [N], of type int64{also}, for '
            f'{sample.config.where(*sample.path)}, got {found}; an item is {describe(sample.item[:2])}: give it its '
            'class as an int'
        )


def check_labels(sample: Sample, widths: Mapping[str, int]) -> list[str]:
    """Checks that each label has its logit.

    Args:
        sample: A batch of a right form.
        widths: Number of logits of each side.

    Returns:
        Warnings: a teacher may know fewer classes, where only its features are compared.

    Raises:
        TRGError: If a label has none in the student.
    """
    config, labels, student = sample.config, sample.labels, widths.get('student')
    if sample.trains and labels.ndim == 2:
        if student is not None and labels.shape[1] != student:
            raise TRGError(
                f'expected {student} class probabilities a label of {sample.name}, one for each class of '
                f'{_sides(config, ["student"], widths)}, got {labels.shape[1]}; change {_places(config, ["student"])}'
            )
        return []
    if sample.trains:
        labels = labels[labels != IGNORED_LABEL]
    if labels.numel() == 0:
        return []
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise TRGError(f'expected labels of {sample.name} from 0 on, got {lowest}; correct the data set')
    narrow = [side for side, width in widths.items() if highest >= width]
    text = (
        f'expected labels of {sample.name} to be among the classes of {_sides(config, narrow, widths)}, got label '
        f'{highest}; set {_places(config, narrow)} to {highest + 1} or more, or correct the labels'
    )
    if 'student' in narrow:
        raise TRGError(text)
    return [f'{text}; the test of the teacher counts such images as wrong'] if narrow else []


def check_class_names(samples: Sequence[Sample]) -> list[str]:
    """Checks that data sets which name their classes number them alike.

    Returns:
        Warnings, where classes have the same numbers and other names.

    Raises:
        TRGError: If a name has two numbers.
    """
    named = [(sample, names) for sample in samples if (names := listed_classes(inner(sample.loader.dataset)))]
    warnings = []
    for sample, names in named[1:]:
        first, known = named[0]
        for number, name in enumerate(names):
            if name in known and known.count(name) == names.count(name) == 1 and known.index(name) != number:
                raise TRGError(
                    f'expected {first.name} and {sample.name} to number their classes alike, got {name!r} as class '
                    f'{known.index(name)} and {number}; give both the same classes, {len(known)} and {len(names)} now'
                )
        other = next((pair for pair in zip(known, names, strict=False) if pair[0] != pair[1]), None)
        if other is not None:
            warnings.append(
                f'{first.name} and {sample.name} name the same class {other[0]!r} and {other[1]!r}; make sure that '
                'their labels mean the same'
            )
    return warnings


def looked_at(sample: Sample) -> str:
    """Returns what is known of the data of a loader: images, form and labels."""
    images, labels = sample.batch[0], sample.labels
    shape = f' {list(images.shape[1:])}' if isinstance(images, Tensor) else ''
    known = 'as class probabilities' if labels.ndim == 2 else f'from {int(labels.min())} to {int(labels.max())}'
    part = '' if sample.listed_labels is not None else ' in the first batch, all that was looked at'
    return f'{".".join(sample.path)}: {len(sample.loader.dataset)} images{shape}, labels {known}{part}'


def _block(config: Config, side: str) -> tuple[str, ...]:
    return config.student_path if side == 'student' else config.teacher_path or ()


def _sides(config: Config, sides: Sequence[str], widths: Mapping[str, int]) -> str:
    shown = (f'the {side} `{config.get(*_block(config, side), "key")}`, which has {widths[side]}' for side in sides)
    return ' and '.join(shown)


def _places(config: Config, sides: Sequence[str]) -> str:
    return ' and '.join(class_place(config, side) for side in sides)


def class_place(config: Config, side: str) -> str:
    """Returns where a YAML says, or could say, how many classes the model of a side has."""
    path = (*_block(config, side), 'kwargs')
    is_there = config.get(*path, 'num_classes') is not None
    return config.where(*path, 'num_classes') if is_there else f'`num_classes:` in {config.where(*path)}'
