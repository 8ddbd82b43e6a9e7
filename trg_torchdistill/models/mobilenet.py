"""MobileNetV2 for images of 32 x 32 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from trg_torchdistill.models._common import check_num_classes, initialize

EXPANSION = 6
LAST_CHANNELS = 1280
# Channels at full width, blocks, stride of the first block.
STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution and linear pointwise projection, with a shortcut where shapes agree.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Channels in between, over those of the input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            Conv2dNormActivation(in_channels, hidden, 1),
            Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden),
            Conv2dNormActivation(hidden, channels, 1, activation_layer=None),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features of the next block."""
        result: Tensor = self.conv(features)
        return features + result if self.has_shortcut else result


class MobileNetV2ForCifar(nn.Module):
    """MobileNetV2 with fewer strides, ReLU, and an expanding convolution in its first block too.

    The architecture is that of RepDistiller (https://github.com/HobbitLong/RepDistiller, BSD 2-Clause); no code is.

    Args:
        width: Factor on the channels of the stem and the blocks.
        num_classes: Number of classes.

    Shape:
        Images [B, 3, 32, 32]; ``conv2`` gives [B, 1280, 2, 2]; logits [B, num_classes].
    """

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = Conv2dNormActivation(3, channels, 3, 2)
        stages: list[nn.Module] = []
        for full_channels, num_blocks, first_stride in STAGES:
            expansion = EXPANSION if stages else 1
            blocks = []
            for index in range(num_blocks):
                stride = 1 if index else first_stride
                blocks.append(InvertedResidual(channels, int(full_channels * width), stride, expansion))
                channels = int(full_channels * width)
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv2 = Conv2dNormActivation(channels, LAST_CHANNELS, 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(LAST_CHANNELS, num_classes)
        initialize(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        features = self.conv2(self.blocks(self.conv1(images)))
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def mobilenetv2_cifar(num_classes: int = 100) -> nn.Module:
    """MobileNetV2 of half width, 812,836 parameters at 100 classes; tokens at ``conv2``, [B, 1280, 2, 2].

    YAML::

        student_model:
          key: 'mobilenetv2_cifar'
          kwargs: {num_classes: 100}
    """
    check_num_classes('mobilenetv2_cifar', num_classes)
    return MobileNetV2ForCifar(0.5, num_classes)
