"""Pairs of a teacher and a student: where their features are, and how wide."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """A model and where its features are.

    Args:
        key: Key of the model.
        layers: Paths of the stages.
        widths: Channels of their outputs.
        pool: Path of the module whose output is one vector an image; a last stage where a model has none.
        map: Path of the last stage as a map, where that is a sequence, for methods that take nothing else.
    """

    key: str
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    pool: str = 'avgpool'
    map: str | None = None


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    Attributes:
        teacher: Teacher.
        student: Student, with as many stages.
        classes: Number of classes.
        strides: By how much each stage of the student is smaller than the image.
        review_width: ``mid_channels`` of ReviewKD.
        attention: (student, teacher) paths of features of equal size, for AT; empty for the last two stages.
        sizes: Side of the images and batch size, by kind of device.
    """

    teacher: Network
    student: Network
    classes: int
    strides: tuple[int, ...]
    review_width: int = 64
    attention: tuple[tuple[str, str], ...] = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


def stages(key: str, *widths: int) -> Network:
    """A model whose stages are `layer1`, `layer2`, ..."""
    return Network(key, tuple(f'layer{index}' for index in range(1, len(widths) + 1)), widths)


PAIRS = {
    'imagenet': Pair(
        stages('resnet34', 64, 128, 256, 512),
        stages('resnet18', 64, 128, 256, 512),
        1000,
        (4, 8, 16, 32),
        512,
        sizes={'cpu': (64, 64), 'cuda': (224, 256)},
    ),
    'cifar': Pair(
        stages('resnet56', 16, 32, 64),
        stages('resnet20', 16, 32, 64),
        100,
        (1, 2, 4),
        sizes={'cpu': (32, 128), 'cuda': (32, 128)},
    ),
}
