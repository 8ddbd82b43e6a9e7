"""Image classification: ``examples/torchvision/image_classification.py`` of torchdistill, and our ``train``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image, to_tensor

from trg_torchdistill.cli.probe.batch import Batch, image_batch, smooth_image
from trg_torchdistill.cli.probe.build import build_untrained
from trg_torchdistill.cli.probe.image_size import ImageSize, image_sizes
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.keys import check_models
from trg_torchdistill.cli.tasks.task import Task


class ImageClassification(Task):
    """One label an image; what a YAML is for that has the traits of no other task."""

    name = 'image classification'
    label = 'the index of its class'
    metric = 'top-1 accuracy'

    def traits(self, config: Config) -> list[str]:
        """Returns nothing: it is the task of all other YAMLs."""
        return []

    def trainer(self, config: Config) -> str:
        """Returns the one trainer."""
        return 'examples/torchvision/image_classification.py'

    def command(self, config: Config, file: str) -> str:
        """Returns our own command."""
        return shlex.join(['trg-torchdistill', 'train', file])

    def build(self, config: Config, path: tuple[str, ...], num_classes: int | None) -> nn.Module:
        """Builds a registered model, or one of torchvision."""
        return build_untrained(config, path, num_classes)

    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> list[ImageSize]:
        """Returns the sizes that the data or the models tell, then the usual ones."""
        return image_sizes(config, stage, models)

    def batch(self, model: nn.Module, size: ImageSize) -> Batch:
        """Returns random images."""
        return image_batch(model, (size.height, size.width))

    def random_data(self, probe: ModelProbe, count: int) -> Dataset[Any]:
        """Returns smooth random images."""
        return RandomImages(count, probe.batch.shape[1:], probe.num_logits or 2)

    def check_models(self, config: Config) -> None:
        """Checks that each model is one that the host builds."""
        check_models(config)


class RandomImages(Dataset[Any]):
    """Smooth random images with random labels, and the attributes that the host's data set wrappers look for.

    Args:
        size: Number of images.
        shape: Shape [C, H, W] of an image.
        num_classes: Number of classes.
    """

    def __init__(self, size: int, shape: Sequence[int], num_classes: int) -> None:
        self.shape = tuple(shape)
        self.transform: Any = _to_tensor
        self.classes = [str(index) for index in range(num_classes)]
        self.targets = torch.randint(num_classes, (size,), generator=torch.Generator().manual_seed(0)).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Returns a picture, as the data sets of torchvision do; a tensor where channels are not those of a picture."""
        image: Any = smooth_image(torch.Generator().manual_seed(index), self.shape)
        if self.shape[0] in (1, 3):
            image = to_pil_image((image * 255).byte())
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def _to_tensor(image: Any) -> Tensor:
    values = image if isinstance(image, Tensor) else to_tensor(image)
    return (values - 0.5) / 0.25
