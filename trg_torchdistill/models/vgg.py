"""VGG with batch normalisation for images of 32 x 32 pixels and one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from trg_torchdistill.models._common import check_num_classes, initialize

WIDTHS = (64, 128, 256, 512, 512)


class VGG4Cifar(nn.Module):
    """Five blocks of convolutions, the first three followed by max pooling.

    The architecture is that of RepDistiller (https://github.com/HobbitLong/RepDistiller, BSD 2-Clause); no code is. It
    pools once less than the VGG of ImageNet, so that the last block sees 4 x 4 positions.

    Args:
        convolutions: Convolutions in each of the five blocks.
        num_classes: Number of classes.

    Shape:
        Images [B, 3, 32, 32]; ``block4`` gives [B, 512, 4, 4]; logits [B, num_classes].
    """

    def __init__(self, convolutions: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.block0 = _block(3, WIDTHS[0], convolutions[0])
        self.block1 = _block(WIDTHS[0], WIDTHS[1], convolutions[1])
        self.block2 = _block(WIDTHS[1], WIDTHS[2], convolutions[2])
        self.block3 = _block(WIDTHS[2], WIDTHS[3], convolutions[3])
        self.block4 = _block(WIDTHS[3], WIDTHS[4], convolutions[4])
        self.pool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[4], num_classes)
        initialize(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        features = images
        for block in (self.block0, self.block1, self.block2):
            features = self.pool(block(features))
        features = self.block4(self.block3(features))
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def _block(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(convolutions):
        layers[f'conv{index}'] = nn.Conv2d(channels if index else in_channels, channels, 3, padding=1)
        layers[f'bn{index}'] = nn.BatchNorm2d(channels)
        layers[f'relu{index}'] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def vgg8(num_classes: int = 100) -> nn.Module:
    """VGG-8 for CIFAR, 3,965,028 parameters at 100 classes; tokens at ``block4``, [B, 512, 4, 4].

    YAML::

        student_model:
          key: 'vgg8'
          kwargs: {num_classes: 100}
    """
    check_num_classes('vgg8', num_classes)
    return VGG4Cifar((1, 1, 1, 1, 1), num_classes)


def vgg13_cifar(num_classes: int = 100) -> nn.Module:
    """VGG-13 for CIFAR, 9,462,180 parameters at 100 classes; tokens at ``block4``, [B, 512, 4, 4].

    The field calls it vgg13. Under that name the example trainer finds the VGG-13 of torchvision first, for ImageNet,
    with 133 million parameters.

    YAML::

        student_model:
          key: 'vgg13_cifar'
          kwargs: {num_classes: 100}
    """
    check_num_classes('vgg13_cifar', num_classes)
    return VGG4Cifar((2, 2, 2, 2, 2), num_classes)
