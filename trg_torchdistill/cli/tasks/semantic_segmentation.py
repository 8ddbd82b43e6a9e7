"""Semantic segmentation: ``examples/torchvision/semantic_segmentation.py`` of torchdistill."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchdistill.models.official import get_semantic_segmentation_model
from torchvision.models import segmentation

from trg_torchdistill.cli.probe.batch import Batch, image_batch, smooth_image
from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import walk
from trg_torchdistill.cli.tasks.dense import DenseTask
from trg_torchdistill.cli.tasks.task import Mask

# What the example trainer's transforms and batches pad maps with, and its data sets write where objects overlap.
IGNORED = 255


class SemanticSegmentation(DenseTask):
    """A class for each pixel."""

    name = 'semantic segmentation'
    label = 'a map [H, W] of the classes of its pixels'
    metric = 'mean IoU'
    torchvision = segmentation
    official = get_semantic_segmentation_model
    datasets = ('VOCSegmentation', 'SBDataset', 'Cityscapes')
    collate = 'coco_seg_collate_fn'
    is_segment = True

    def trainer(self, config: Config) -> str:
        """Returns the one trainer."""
        return 'examples/torchvision/semantic_segmentation.py'

    def command(self, config: Config, file: str) -> str:
        """Returns the command with the number of classes, which the trainer counts for its mean IoU."""
        num_classes = config.get(*config.student_path, 'kwargs', 'num_classes')
        words = ['--num_classes', str(num_classes)] if isinstance(num_classes, int) else []
        return shlex.join([*shlex.split(super().command(config, file)), *words])

    def batch(self, model: nn.Module, size: ImageSize) -> Batch:
        """Returns random images."""
        return image_batch(model, (size.height, size.width))

    def random_data(self, probe: ModelProbe, count: int) -> Dataset[Any]:
        """Returns smooth random images with maps of vertical stripes of classes, padded at the bottom."""
        return RandomMaps(count, probe.batch.shape[2:], probe.num_logits or 2)

    def mask(self, config: Config, probes: Mapping[str, ModelProbe]) -> Mask:
        """Returns that pixels which the loss of the labels ignores are no tokens."""
        found = [value for path, value in walk(config.get('train')) if path[-1:] == ('ignore_index',)]
        ignored = next((value for value in found if isinstance(value, int)), IGNORED)
        note = f'pixels whose label is {ignored}, padding and the like, are no tokens of TRG: `token_mask`.'
        return Mask(loss={'token_mask': {'ignore_index': ignored}}, note=note)


class RandomMaps(Dataset[Any]):
    """Random images [3, H, W] with maps [H, W].

    Args:
        size: Number of images.
        shape: Height and width.
        num_classes: Number of classes.
    """

    def __init__(self, size: int, shape: tuple[int, ...], num_classes: int) -> None:
        self.size, self.shape, self.num_classes = size, shape, num_classes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns an image, normalised, and its map."""
        generator = torch.Generator().manual_seed(index)
        height, width = self.shape
        classes = torch.randint(self.num_classes, (4,), generator=generator)
        targets = classes[torch.arange(width) * 4 // width].expand(height, width).clone()
        targets[height - height // 8 :] = IGNORED
        return (smooth_image(generator, (3, height, width)) - 0.5) / 0.25, targets
