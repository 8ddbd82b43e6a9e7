"""The one table of what a YAML can name, and its entry into the host's registries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchdistill.core.interfaces.registry import (
    FORWARD_PROC_FUNC_DICT,
    POST_EPOCH_PROC_FUNC_DICT,
    PRE_EPOCH_PROC_FUNC_DICT,
)
from torchdistill.losses.registry import MIDDLE_LEVEL_LOSS_DICT
from torchdistill.models.registry import AUXILIARY_MODEL_WRAPPER_DICT, MODEL_DICT

from trg_torchdistill import models
from trg_torchdistill.errors import TRGError
from trg_torchdistill.losses import LOSSES, RelationLoss
from trg_torchdistill.procs import forward_logits_only, post_epoch_process_with_trg, pre_epoch_process_with_trg
from trg_torchdistill.wrappers import Student4TRG


@dataclass(frozen=True)
class Entry:
    """A key of the YAML: the host's registry of its kind, what it builds, and one line about it."""

    kind: str
    registry: dict[str, Any]
    key: str
    target: Callable[..., Any]
    description: str


def _model(builder: Callable[..., Any], description: str) -> Entry:
    return Entry('model', MODEL_DICT, builder.__name__, builder, description)


TABLE = (
    *(Entry('middle-level loss', MIDDLE_LEVEL_LOSS_DICT, loss.__name__, loss, loss.summary) for loss in LOSSES),
    Entry(
        'auxiliary model wrapper',
        AUXILIARY_MODEL_WRAPPER_DICT,
        'Student4TRG',
        Student4TRG,
        'the student with learned projections of its tokens',
    ),
    Entry(
        'forward process',
        FORWARD_PROC_FUNC_DICT,
        'forward_logits_only',
        forward_logits_only,
        'logits of a plain or ModelOutput-like result, of two heads, or beside a feature',
    ),
    Entry(
        'pre-epoch process',
        PRE_EPOCH_PROC_FUNC_DICT,
        'pre_epoch_process_with_trg',
        pre_epoch_process_with_trg,
        'default process, frozen teacher in eval mode, epoch to schedules',
    ),
    Entry(
        'post-epoch process',
        POST_EPOCH_PROC_FUNC_DICT,
        'post_epoch_process_with_trg',
        post_epoch_process_with_trg,
        "default process, log of the epoch's mean terms",
    ),
    _model(models.resnet8, 'CIFAR ResNet with one block a stage, 78 k parameters'),
    _model(models.resnet8x4, 'CIFAR ResNet-8, four times as wide; tokens at `layer3`'),
    _model(models.resnet32x4, 'CIFAR ResNet-32, four times as wide; tokens at `layer3`'),
    _model(models.wrn_16_2, 'CIFAR Wide ResNet 16-2; tokens at `relu`'),
    _model(models.wrn_40_1, 'CIFAR Wide ResNet 40-1; tokens at `relu`'),
    _model(models.wrn_40_2, 'CIFAR Wide ResNet 40-2; tokens at `relu`'),
    _model(models.vgg8, 'CIFAR VGG-8 with batch normalisation; tokens at `block4`'),
    _model(models.vgg13_cifar, 'CIFAR VGG-13 with batch normalisation; tokens at `block4`'),
    _model(models.mobilenetv2_cifar, 'CIFAR MobileNetV2 of half width; tokens at `conv2`'),
    _model(models.shufflenetv1_cifar, 'CIFAR ShuffleNet V1; tokens at `layer3`'),
    _model(models.shufflenetv2_cifar, 'CIFAR ShuffleNet V2; tokens at `conv5`'),
    _model(models.vit_cifar_tiny, 'CIFAR ViT of 4 layers of width 64, no class token, AdamW; tokens at `blocks`'),
    _model(models.timm, 'any model of timm by `model_name`; extra `hub`'),
    _model(models.hf_image_classifier, 'any image classifier of transformers by `model_type`; extra `hub`'),
)


def register() -> None:
    """Enters the table into the host's registries; a second call changes nothing.

    Raises:
        TRGError: If another package took one of the keys; nothing is registered then.
    """
    for entry in TABLE:
        taken = entry.registry.get(entry.key, entry.target)
        if (taken.__module__, taken.__qualname__) != (entry.target.__module__, entry.target.__qualname__):
            raise TRGError(
                f'expected the {entry.kind} key `{entry.key}` to be free, got one registered by '
                f'`{taken.__module__}`; remove that package from `dependencies:`'
            )
    for entry in TABLE:
        entry.registry[entry.key] = entry.target


def relation_loss_classes() -> dict[str, type[RelationLoss]]:
    """Returns by key the relation losses that a YAML can name: ours, and those that other packages registered."""
    return {
        key: found
        for key, found in MIDDLE_LEVEL_LOSS_DICT.items()
        if isinstance(found, type) and issubclass(found, RelationLoss)
    }
