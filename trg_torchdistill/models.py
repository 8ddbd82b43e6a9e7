"""Models for small images that torchdistill lacks, built from torchdistill's own blocks."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchdistill.models.classification.resnet import ResNet4Cifar
from torchvision.models.resnet import BasicBlock


def resnet8(num_classes: int = 10, **kwargs: Any) -> nn.Module:
    """ResNet-8 for 32 x 32 images: torchdistill's CIFAR ResNet with one block a stage, 78 k parameters at 10 classes.

    torchdistill registers depths from 20 on; its depth-parametrised key ``resnet`` is shadowed by a torchvision module.

    Args:
        num_classes: Number of classes.
        **kwargs: Further options of torchdistill's ``ResNet4Cifar``.

    YAML::

        student_model:
          key: 'resnet8'
          kwargs: {num_classes: 10}
    """
    model: nn.Module = ResNet4Cifar(BasicBlock, [1, 1, 1], num_classes, **kwargs)
    return model
