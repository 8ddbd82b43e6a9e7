"""The pairs of the accuracy grid, and how they are trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _pairs import Network, Pair, stages

FAST = ('--amp', 'bf16', '--channels_last')
CLASSES = 10


@dataclass(frozen=True)
class Recipe:
    """How every student of a grid is trained: SGD with cycles of the learning rate, steps of equal size.

    Attributes:
        pair: Teacher and student.
        epochs: Epochs of a student.
        teacher_cycles: Epochs and peak of each cycle of the teacher, one after the other.
        max_lr: Peak of a student's cycle.
        batch_size: Images a step; an incomplete last batch is dropped.
        num_workers: Processes that read images.
        flags: Further words of the command line of every training.
    """

    pair: Pair
    epochs: int
    teacher_cycles: tuple[tuple[int, float], ...]
    max_lr: float = 0.2
    batch_size: int = 128
    num_workers: int = 0
    flags: tuple[str, ...] = FAST


def _wrn(key: str) -> Network:
    """A WRN of width 2; its stages end before the last normalisation, `relu` gives the features that are pooled."""
    return Network(key, ('layer1', 'layer2', 'relu'), (32, 64, 128))


def _full(pair: Pair) -> Recipe:
    return Recipe(pair, epochs=240, teacher_cycles=((240, 0.2),), num_workers=2)


STRIDES = (1, 2, 4)
RECIPES = {
    'cpu': Recipe(
        Pair(_wrn('wrn_16_2'), stages('resnet8', 16, 32, 64), CLASSES, STRIDES),
        epochs=12,
        teacher_cycles=((24, 0.2), (15, 0.1)),
    ),
    'resnet56_resnet20': _full(
        Pair(stages('resnet56', 16, 32, 64), stages('resnet20', 16, 32, 64), CLASSES, STRIDES),
    ),
    'wrn_40_2_wrn_16_2': _full(Pair(_wrn('wrn_40_2'), _wrn('wrn_16_2'), CLASSES, STRIDES)),
    'resnet32x4_shufflenetv2': _full(
        Pair(
            stages('resnet32x4', 64, 128, 256),
            Network('shufflenetv2_cifar', ('stage2', 'stage3', 'conv5'), (116, 232, 1024), pool='conv5'),
            CLASSES,
            strides=(2, 4, 8),
            attention=(('stage2', 'layer2'), ('stage3', 'layer3')),
        )
    ),
}
