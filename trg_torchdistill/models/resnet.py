"""ResNets for images of 32 x 32 pixels that torchdistill lacks.

torchdistill's own ``resnet20`` to ``resnet110`` are those of the distillation literature, weight for weight.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchdistill.models.classification.resnet import ResNet4Cifar
from torchvision.models.resnet import BasicBlock

from trg_torchdistill._checks import advice, check_bool, check_integer
from trg_torchdistill.errors import TRGError
from trg_torchdistill.models._common import check_num_classes, initialize


def resnet8(
    num_classes: int = 10,
    zero_init_residual: bool = False,
    norm_layer: Callable[..., nn.Module] | None = None,
) -> nn.Module:
    """ResNet-8 for 32 x 32 images: torchdistill's CIFAR ResNet with one block a stage, 78 k parameters at 10 classes.

    It takes images [B, 3, 32, 32] and returns logits [B, num_classes]; ``layer3`` gives [B, 64, 8, 8], like the deeper
    CIFAR ResNets of torchdistill, which registers depths from 20 on. (Its key ``resnet``, which takes a depth, cannot
    be used: the example trainer finds ``torchvision.models.resnet``, a module, first.)

    Args:
        num_classes: Number of classes.
        zero_init_residual: Start each residual branch at zero.
        norm_layer: Normalisation of a number of channels; None for ``torch.nn.BatchNorm2d``.

    Raises:
        TRGError: If a keyword is unknown or of a wrong type; if ``num_classes`` is less than 1.

    YAML::

        student_model:
          key: 'resnet8'
          kwargs: {num_classes: 10}
    """
    with advice('change it under the `kwargs:` of the model `resnet8`'):
        check_integer('num_classes', num_classes, 1)
        check_bool('zero_init_residual', zero_init_residual)
        if norm_layer is not None and not callable(norm_layer):
            raise TRGError(f'expected `norm_layer` to be a module class (by `!import_get`) or null, got {norm_layer!r}')
    model: nn.Module = ResNet4Cifar(
        BasicBlock, [1, 1, 1], num_classes, zero_init_residual=zero_init_residual, norm_layer=norm_layer
    )
    return model


class WideStemResNet(nn.Module):
    """CIFAR ResNet of 6n + 2 layers whose stem and three stages are wider than usual.

    Every stage begins with a projection on its shortcut. The architecture is that of RepDistiller
    (https://github.com/HobbitLong/RepDistiller, BSD 2-Clause); no code is.

    Args:
        depth: 6n + 2.
        widths: Channels of the stem and of the three stages.
        num_classes: Number of classes.

    Shape:
        Images [B, 3, 32, 32]; ``layer3`` gives [B, widths[3], 8, 8]; logits [B, num_classes].
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    projection = nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride, bias=False),
        nn.BatchNorm2d(channels),
    )
    first = BasicBlock(in_channels, channels, stride, projection)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


def resnet8x4(num_classes: int = 100) -> nn.Module:
    """ResNet-8 of four times the width, 1,233,540 parameters at 100 classes; tokens at ``layer3``, [B, 256, 8, 8].

    YAML::

        student_model:
          key: 'resnet8x4'
          kwargs: {num_classes: 100}
    """
    check_num_classes('resnet8x4', num_classes)
    return WideStemResNet(8, (32, 64, 128, 256), num_classes)


def resnet32x4(num_classes: int = 100) -> nn.Module:
    """ResNet-32 of four times the width, 7,433,860 parameters at 100 classes; tokens at ``layer3``, [B, 256, 8, 8].

    YAML::

        student_model:
          key: 'resnet32x4'
          kwargs: {num_classes: 100}
    """
    check_num_classes('resnet32x4', num_classes)
    return WideStemResNet(32, (32, 64, 128, 256), num_classes)
