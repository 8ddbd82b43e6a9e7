"""A segmentation model small enough to be trained from nothing on a CPU, for ``dependencies:`` of a YAML."""

from __future__ import annotations

from torch import nn
from torchdistill.models.registry import get_model, register_model
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead

import trg_torchdistill  # noqa: F401  registers `resnet8`


@register_model
def fcn_cifar_resnet(backbone: str, num_classes: int) -> nn.Module:
    """A fully convolutional network of torchvision on a CIFAR ResNet: 64 features at a quarter of the image's sides.

    Args:
        backbone: ``resnet8``, ``resnet20``, ``resnet32``, ...
        num_classes: Number of classes, the background among them.
    """
    features = IntermediateLayerGetter(get_model(backbone, num_classes=1), {'layer3': 'out'})
    return FCN(features, FCNHead(64, num_classes))
