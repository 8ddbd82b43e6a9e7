"""Presets of torchdistill's Wide ResNet that the distillation literature uses and torchdistill has no key for.

They have the parameters of those in RepDistiller, shape by shape, but not the same function: where a block changes the
width, torchdistill's shortcut projects the block's input, RepDistiller's that input after normalisation and ReLU. The
last normalisation and ReLU follow ``layer3``, so the tokens are taken at ``relu``. The dropout inside the blocks,
``dropout_p``, is at least 0 and less than 1.
"""

from __future__ import annotations

from torch import nn
from torchdistill.models.classification.wide_resnet import WideBasicBlock, WideResNet4Cifar

from trg_torchdistill._checks import advice, check_not_negative
from trg_torchdistill.errors import TRGError
from trg_torchdistill.models._common import check_num_classes


def wrn_16_2(num_classes: int = 100, dropout_p: float = 0.0) -> nn.Module:
    """WRN-16-2, 703,284 parameters at 100 classes; tokens at ``relu``, [B, 128, 8, 8].

    YAML::

        student_model:
          key: 'wrn_16_2'
          kwargs: {num_classes: 100}
    """
    return _wide_resnet('wrn_16_2', 16, 2, num_classes, dropout_p)


def wrn_40_1(num_classes: int = 100, dropout_p: float = 0.0) -> nn.Module:
    """WRN-40-1, 569,780 parameters at 100 classes; tokens at ``relu``, [B, 64, 8, 8].

    YAML::

        student_model:
          key: 'wrn_40_1'
          kwargs: {num_classes: 100}
    """
    return _wide_resnet('wrn_40_1', 40, 1, num_classes, dropout_p)


def wrn_40_2(num_classes: int = 100, dropout_p: float = 0.0) -> nn.Module:
    """WRN-40-2, 2,255,156 parameters at 100 classes; tokens at ``relu``, [B, 128, 8, 8].

    YAML::

        student_model:
          key: 'wrn_40_2'
          kwargs: {num_classes: 100}
    """
    return _wide_resnet('wrn_40_2', 40, 2, num_classes, dropout_p)


def _wide_resnet(key: str, depth: int, width: int, num_classes: int, dropout_p: float) -> nn.Module:
    check_num_classes(key, num_classes)
    with advice(f'change it under the `kwargs:` of the model `{key}`'):
        check_not_negative('dropout_p', dropout_p)
        if dropout_p >= 1:
            raise TRGError(f'expected `dropout_p` to be less than 1, got {dropout_p}')
    model: nn.Module = WideResNet4Cifar(depth, width, dropout_p, WideBasicBlock, num_classes)
    return model
