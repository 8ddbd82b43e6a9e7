"""What `grid.py ablate` changes, one thing at a time, in KD + TRG with the weights that `tune` chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One change to a method.

    Attributes:
        axis: What is changed; variants of an axis stand together in the table.
        value: To what.
        method: The method that is changed.
        options: Keywords of ``TRGLoss``.
        batch_size: Images a step in place of the recipe's; the learning rate changes in proportion.
        teacher_trains: Whether the teacher stays in training mode, as torchdistill's own pre-epoch process leaves it.
    """

    axis: str = ''
    value: str = ''
    method: str = 'kd+trg'
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    teacher_trains: bool = False

    @property
    def name(self) -> str:
        """Axis and value."""
        return f'{self.axis}={self.value}' if self.axis else ''


UNCHANGED = Variant()


def _options(axis: str, *values: Any, **more: Any) -> tuple[Variant, ...]:
    return tuple(Variant(axis, str(value), options={axis: value, **more}) for value in values)


VARIANTS = (
    *_options('num_neighbors', 2, 4, 16, 32),
    *_options('sigma', 0.1, 0.25, 1.0, 2.0),
    *_options('tokens_per_image', 2, 4, 16, 32),
    *_options('kl_direction', 'student_teacher'),
    Variant('affinity_support', 'neighbors', options={'affinity_support': 'neighbors', 'local_reduction': 'mean'}),
    *_options('normalize_tokens', False),
    *_options('temperature', 0.1, 0.2, 0.5),
    Variant('temperature', '0.1 to 0.5', options={'temperature': {'start': 0.1, 'end': 0.5, 'schedule': 'cosine'}}),
    Variant('batch_size', '64', batch_size=64),
    Variant('batch_size', '256', batch_size=256),
    Variant('teacher', 'evaluation mode', method='kd+local'),
    Variant('teacher', 'training mode', method='kd+local', teacher_trains=True),
)
AXES = tuple(dict.fromkeys(variant.axis for variant in VARIANTS))
