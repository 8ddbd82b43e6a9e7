"""ShuffleNet V1 and V2 for images of 32 x 32 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.ops import Conv2dNormActivation

from trg_torchdistill.models._common import check_num_classes

STEM_CHANNELS = 24
GROUPS = 3


class ShuffleUnit(nn.Module):
    """Grouped pointwise, shuffle, depthwise, grouped pointwise; added to its input, or joined to it where it strides.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: 1, or 2 where the map shrinks.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        made = channels - in_channels if stride == 2 else channels
        hidden = made // 4
        groups = 1 if in_channels == STEM_CHANNELS else GROUPS
        self.reduce = Conv2dNormActivation(in_channels, hidden, 1, groups=groups)
        self.shuffle = nn.ChannelShuffle(groups)
        self.depthwise = Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden)
        self.expand = Conv2dNormActivation(hidden, made, 1, groups=GROUPS, activation_layer=None)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features of the next unit."""
        result = self.expand(self.depthwise(self.shuffle(self.reduce(features))))
        joined = result + features if self.pool is None else torch.cat([result, self.pool(features)], 1)
        output: Tensor = self.relu(joined)
        return output


class ShuffleNetV1ForCifar(nn.Module):
    """ShuffleNet V1 with three groups, a pointwise stem and no pooling before its stages.

    The architecture is that of RepDistiller (https://github.com/HobbitLong/RepDistiller, BSD 2-Clause); no code is.

    Args:
        num_classes: Number of classes.

    Shape:
        Images [B, 3, 32, 32]; ``layer3`` gives [B, 960, 4, 4]; logits [B, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = Conv2dNormActivation(3, STEM_CHANNELS, 1)
        self.layer1 = _stage(STEM_CHANNELS, 240, 4)
        self.layer2 = _stage(240, 480, 8)
        self.layer3 = _stage(480, 960, 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(960, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        features = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def _stage(in_channels: int, channels: int, units: int) -> nn.Sequential:
    return nn.Sequential(
        ShuffleUnit(in_channels, channels, 2), *(ShuffleUnit(channels, channels, 1) for _ in range(units - 1))
    )


def shufflenetv1_cifar(num_classes: int = 100) -> nn.Module:
    """ShuffleNet V1 for CIFAR, 949,258 parameters at 100 classes; tokens at ``layer3``, [B, 960, 4, 4].

    YAML::

        student_model:
          key: 'shufflenetv1_cifar'
          kwargs: {num_classes: 100}
    """
    check_num_classes('shufflenetv1_cifar', num_classes)
    return ShuffleNetV1ForCifar(num_classes)


def shufflenetv2_cifar(num_classes: int = 100) -> nn.Module:
    """ShuffleNet V2 for CIFAR, 1,355,528 parameters at 100 classes; tokens at ``conv5``, [B, 1024, 4, 4].

    It is torchvision's ``shufflenet_v2_x1_0`` with a pointwise stem and without the first pooling, which is the
    architecture of RepDistiller (https://github.com/HobbitLong/RepDistiller, BSD 2-Clause).

    YAML::

        student_model:
          key: 'shufflenetv2_cifar'
          kwargs: {num_classes: 100}
    """
    check_num_classes('shufflenetv2_cifar', num_classes)
    model = ShuffleNetV2([4, 8, 4], [STEM_CHANNELS, 116, 232, 464, 1024], num_classes)
    model.conv1 = Conv2dNormActivation(3, STEM_CHANNELS, 1)
    model.maxpool = nn.Identity()
    network: nn.Module = model
    return network
