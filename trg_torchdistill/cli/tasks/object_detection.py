"""Object detection: ``examples/torchvision/object_detection.py`` of torchdistill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchdistill.models.official import get_object_detection_model
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from trg_torchdistill.cli.probe.batch import BATCH_SIZE, Batch, smooth_image
from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.dense import DenseTask
from trg_torchdistill.cli.tasks.task import Mask

QUICK = 256


class ObjectDetection(DenseTask):
    """Boxes with a class each, and masks."""

    name = 'object detection'
    label = 'the boxes of its objects, their classes and masks'
    metric = 'mean average precision'
    torchvision = detection
    official = get_object_detection_model
    datasets = ('VOCDetection',)
    collate = 'coco_collate_fn'
    is_segment = False

    def trainer(self, config: Config) -> str:
        """Returns the one trainer."""
        return 'examples/torchvision/object_detection.py'

    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> list[ImageSize]:
        """Returns one: the models of torchvision resize what they get, here to a size with which a step is quick."""
        wanted = [transform.min_size[-1] for transform in filter(None, map(transform_of, models))]
        if not wanted:
            return super().sizes(config, stage, models)
        side = min(*wanted, QUICK)
        source = f'smaller than the {min(wanted)} to which the models resize, to be quick'
        return [ImageSize(side, side, source if side < min(wanted) else '`min_size` of the models')]

    def batch(self, model: nn.Module, size: ImageSize) -> Batch:
        """Returns random images in a list, as the models of torchvision take them; the model keeps their size."""
        transform = transform_of(model)
        if transform is not None:
            transform.min_size, transform.max_size = (min(size.height, size.width),), max(size.height, size.width)
        shape = (BATCH_SIZE, 3, size.height, size.width)
        return Batch(shape, (list(torch.rand(shape)),))

    def random_data(self, probe: ModelProbe, count: int) -> Dataset[Any]:
        """Returns smooth random images with an object each."""
        return RandomObjects(count, probe.batch.shape[2:])

    def mask(self, config: Config, probes: Mapping[str, ModelProbe]) -> Mask:
        """Returns that of torchvision's transform, which pads the images of a batch to one shape.

        It is the teacher's: the student's path would hang on what is put around the student.
        """
        found = [
            each.path for each in probes['teacher'].records if each.class_name == GeneralizedRCNNTransform.__name__
        ]
        if not found:
            return Mask()
        return Mask(
            loss={'token_mask': {'path': found[0], 'io': 'output', 'side': 'teacher'}},
            hooks={'teacher': found[:1]},
            note=f'what `{found[0]}` pads the images of a batch with is no token of TRG: `token_mask`.',
        )


def transform_of(model: nn.Module) -> GeneralizedRCNNTransform | None:
    """Returns what resizes and pads the images of a model, None if it is no model of torchvision."""
    return next((part for part in model.modules() if isinstance(part, GeneralizedRCNNTransform)), None)


class RandomObjects(Dataset[Any]):
    """Random images [3, H, W] with an object each.

    Args:
        size: Number of images.
        shape: Height and width.
    """

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self.size, self.shape = size, shape

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns an image and its targets, as the example trainer's data set does."""
        height, width = self.shape
        masks = torch.zeros(1, height, width, dtype=torch.uint8)
        masks[:, height // 4 : height // 2, width // 4 : width // 2] = 1
        box = torch.tensor([[width // 4, height // 4, width // 2, height // 2]])
        return smooth_image(torch.Generator().manual_seed(index), (3, height, width)), {
            'boxes': box.float(),
            'labels': torch.ones(1, dtype=torch.int64),
            'masks': masks,
            'image_id': torch.tensor([index]),
            'area': masks.sum((1, 2)).float(),
            'iscrowd': torch.zeros(1, dtype=torch.int64),
        }
