"""Models for small images that torchdistill lacks, built from torchdistill's own blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchdistill.models.classification.resnet import ResNet4Cifar
from torchvision.models.resnet import BasicBlock

from trg_torchdistill._checks import advice, check_bool, check_integer


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
        TypeError: If a keyword is unknown or of a wrong type.
        ValueError: If ``num_classes`` is less than 1.

    YAML::

        student_model:
          key: 'resnet8'
          kwargs: {num_classes: 10}
    """
    with advice('change it under the `kwargs:` of the model `resnet8`'):
        check_integer('num_classes', num_classes, 1)
        check_bool('zero_init_residual', zero_init_residual)
        if norm_layer is not None and not callable(norm_layer):
            raise TypeError(
                f'expected `norm_layer` to be a module class (by `!import_get`) or null, got {norm_layer!r}'
            )
    model: nn.Module = ResNet4Cifar(
        BasicBlock, [1, 1, 1], num_classes, zero_init_residual=zero_init_residual, norm_layer=norm_layer
    )
    return model
