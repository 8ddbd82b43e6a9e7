"""Finds the size of the training images in a YAML: in the transforms, the data set, the models, or by trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import Deferred, deferred_in

CROPS = ('RandomResizedCrop', 'RandomCrop', 'CenterCrop', 'FiveCrop', 'TenCrop')
TRAINER_CROPS = ('CustomRandomCrop', 'CustomCenterCrop')  # of torchdistill's examples
SIZE_ARGUMENTS = ('image_size', 'img_size', 'input_size')
KNOWN_DATASETS = {
    **dict.fromkeys(('CIFAR10', 'CIFAR100', 'SVHN'), 32),
    **dict.fromkeys(('MNIST', 'FashionMNIST', 'EMNIST', 'KMNIST', 'QMNIST'), 28),
    **dict.fromkeys(('USPS', 'SEMEION'), 16),
    **{'FER2013': 48, 'EuroSAT': 64, 'STL10': 96, 'PCAM': 96, 'Omniglot': 105, 'FakeData': 224, 'RenderedSST2': 448},
}
OUR_DATASETS = {'trg_torchdistill.datasets.Digits': 32}
USUAL_SIZES = (224, 32)


@dataclass(frozen=True)
class ImageSize:
    """A size of images and where it was found.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        source: Where it was found, for the user.
        is_guess: Whether neither the data nor the arguments of a model tell it.
    """

    height: int
    width: int
    source: str
    is_guess: bool = False

    def __str__(self) -> str:
        return f'{self.height} x {self.width}'


def image_sizes(config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> list[ImageSize]:
    """Returns the sizes to try, the likeliest first, each once.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`.
        stage: Path of the training stage.
        models: The models that must take them.
    """
    found = [*_sizes_of_data(config, stage), *_sizes_of_arguments(config), *_declared_sizes(models)]
    # The CIFAR models of torchdistill take large images too, slowly, and nobody gives them any.
    is_small = any(type(model).__module__.startswith('torchdistill.models.classification') for model in models)
    for size in reversed(USUAL_SIZES) if is_small else USUAL_SIZES:
        source = 'a usual size, the YAML names none; else give `--input-size`'
        found.append(ImageSize(size, size, source, is_guess=True))
    unique: dict[tuple[int, int], ImageSize] = {}
    for candidate in found:
        unique.setdefault((candidate.height, candidate.width), candidate)
    return list(unique.values())


def _sizes_of_data(config: Config, stage: tuple[str, ...]) -> Iterator[ImageSize]:
    blocks = config.get('datasets') if isinstance(config.get('datasets'), dict) else {}
    ids = [config.get(*one, 'train_data_loader', 'dataset_id') for one in (stage, *config.stage_paths())]
    for block in (*(blocks.get(name) for name in ids if isinstance(name, str)), *blocks.values()):
        size = _size_of_dataset(block)
        if size is not None:
            yield size


def _size_of_dataset(block: Any) -> ImageSize | None:
    """Returns the size of a data set's images: its last crop, else its resizing, else what its class is known for."""
    calls = [_call(deferred) for deferred in deferred_in(block)]
    for wanted in ((*CROPS, *TRAINER_CROPS), ('Resize',)):
        for name, arguments in reversed(calls):
            sides = _sides(arguments.get('size')) if name.rpartition('.')[2] in wanted else None
            if sides is not None:
                return ImageSize(*sides, f'`{name.rpartition(".")[2]}` of the training data')
    for name, arguments in calls:
        for argument in (*SIZE_ARGUMENTS, *(['size'] if name in OUR_DATASETS else [])):
            sides = _sides(arguments.get(argument))
            if sides is not None:
                return ImageSize(*sides, f'`{argument}` of `{name.rpartition(".")[2]}`')
        known = OUR_DATASETS.get(name) or KNOWN_DATASETS.get(name.rpartition('.')[2])
        if known is not None:
            return ImageSize(known, known, f'the images of `{name.rpartition(".")[2]}`')
    return None


def _sizes_of_arguments(config: Config) -> Iterator[ImageSize]:
    for block in (config.get(*config.student_path), config.get('models', 'teacher_model')):
        arguments = (block or {}).get('kwargs') or {}
        for argument in SIZE_ARGUMENTS:
            sides = _sides(arguments.get(argument))
            if sides is not None:
                yield ImageSize(*sides, f'`{argument}` of `{block["key"]}`')


def _declared_sizes(models: Sequence[nn.Module]) -> Iterator[ImageSize]:
    """Yields what timm's, Hugging Face's and torchvision's models say of themselves."""
    for model in models:
        timm_config = getattr(model, 'default_cfg', None)
        for value in (
            timm_config.get('input_size') if isinstance(timm_config, dict) else None,
            getattr(getattr(model, 'config', None), 'image_size', None),
            getattr(model, 'image_size', None),
        ):
            sides = _sides(value)
            if sides is not None:
                yield ImageSize(*sides, f'what `{type(model).__name__}` expects', is_guess=True)


def _sides(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value, value
    if isinstance(value, (list, tuple)) and value and all(isinstance(side, int) and side > 0 for side in value):
        return value[-2:][0], value[-1]
    return None


def _call(deferred: Deferred) -> tuple[str, dict[str, Any]]:
    """Returns what a tag names and its arguments, of which the first without a name counts as the size."""
    key, package, kwargs = deferred.get('key'), deferred.get('package'), deferred.get('init', 'kwargs')
    arguments = dict(kwargs) if isinstance(kwargs, dict) else {}
    positional = deferred.get('init', 'args')
    if isinstance(positional, list) and positional:
        arguments.setdefault('size', positional[0])
    return f'{package}.{key}' if package else str(key), arguments
