"""The pairs of the accuracy grid, and how they are trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _pairs import Network, Pair, stages
from methods import LIGHTER, QUICK, Method

FAST = ('--amp', 'bf16', '--channels_last')
CLASSES = 10


@dataclass(frozen=True)
class Recipe:
    """How every student of a grid is trained: cycles of the learning rate, steps of equal size.

    Attributes:
        pair: Teacher and student.
        epochs: Epochs of a student.
        teacher_cycles: Epochs and peak of each cycle of the teacher, one after the other.
        max_lr: Peak of a student's cycle.
        batch_size: Images a step; an incomplete last batch is dropped.
        num_workers: Processes that read images.
        in_memory: Whether the device holds all images.
        methods: Methods with other candidates than those of ``METHODS``.
        teacher: Recipe whose teacher it is, where it has none of its own.
        optimizer: Of all trainings, a key of ``OPTIMIZERS``.
        schedules: Numbers of epochs that ``lasting.py`` compares.
        flags: Further words of the command line of every training.
    """

    pair: Pair
    epochs: int
    teacher_cycles: tuple[tuple[int, float], ...]
    max_lr: float = 0.2
    batch_size: int = 128
    num_workers: int = 0
    in_memory: bool = False
    methods: dict[str, Method] = field(default_factory=dict)
    teacher: str | None = None
    optimizer: str = 'SGD'
    schedules: tuple[int, ...] = ()
    flags: tuple[str, ...] = FAST


def _wrn(key: str) -> Network:
    """A WRN of width 2; its stages end before the last normalisation, `relu` gives the features that are pooled."""
    return Network(key, ('layer1', 'layer2', 'relu'), (32, 64, 128))


def _full(pair: Pair) -> Recipe:
    return Recipe(pair, epochs=240, teacher_cycles=((240, 0.2),), in_memory=True, methods=LIGHTER, schedules=(240,))


STRIDES = (1, 2, 4)
SMALL = Pair(_wrn('wrn_16_2'), stages('resnet8', 16, 32, 64), CLASSES, STRIDES)
FULL = {
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
RECIPES = {
    'cpu': Recipe(SMALL, epochs=12, teacher_cycles=((24, 0.2), (15, 0.1))),
    'long': Recipe(
        SMALL, epochs=96, teacher_cycles=(), in_memory=True, methods=QUICK, teacher='cpu', flags=('--channels_last',)
    ),
    **FULL,
}


def _tiny_vit(teacher: Network) -> Pair:
    student = Network('vit_cifar_tiny', ('blocks.0', 'blocks.1', 'blocks'), (64, 64, 64), map='grid')
    return Pair(teacher, student, CLASSES, strides=(4, 4, 4), attention=(('grid', 'relu'),))


SCHEDULES = (12, 36, 96)
CNN = Recipe(SMALL, epochs=36, teacher_cycles=(), teacher='cpu', schedules=SCHEDULES)
ON_VIT = {'max_lr': 0.002, 'optimizer': 'AdamW'}
VIT = replace(CNN, pair=_tiny_vit(SMALL.teacher), flags=(), **ON_VIT)  # on a CPU bfloat16 makes it slower
FULL_VIT = replace(
    _full(_tiny_vit(_wrn('wrn_40_2'))), teacher_cycles=(), teacher='wrn_40_2_wrn_16_2', flags=FAST[:2], **ON_VIT
)
# The names are those of the settings, too.
LASTING = {
    'cnn': CNN,
    'vit': VIT,
    'cnn_lt': replace(CNN, teacher='longtailed', teacher_cycles=((60, 0.2),)),
    'vit_lt': replace(VIT, teacher='longtailed'),
    'cnn_7': CNN,
    'vit_7': VIT,
    **FULL,
    'wrn_40_2_vit': FULL_VIT,
}
