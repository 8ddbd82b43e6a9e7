"""What `grid.py ablate` changes, one thing at a time, in a method with the weights that `tune` chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One change to a method.

    Attributes:
        axis: What is changed; variants of an axis stand together in the table. Empty for no change.
        value: To what.
        method: The method that is changed.
        trg: Keywords of ``TRGLoss``.
        contextual: Keywords of ``TokenContextualLoss``.
        weights: Weights of the method's terms in place of the tuned ones; of ``kd`` (alpha, temperature).
        kd: (alpha, temperature) of the ``KDLoss`` beside the method's terms, in place of the tuned ones.
        epochs: Epochs in place of the recipe's.
        batch_size: Images a step in place of the recipe's; the learning rate changes in proportion.
        loss: Key of TRG's loss.
        base: Key of the loss of the logits, of ``BASES``.
        stop: Epochs after which the training stops, its learning rate as of the whole; None for the end.
        falls_until: The part of the training after which the weights of TRG's terms are 0; None for fixed ones.
        teacher_trains: Whether the teacher stays in training mode, as torchdistill's own pre-epoch process leaves it.
    """

    axis: str = ''
    value: str = ''
    method: str = 'kd+trg'
    trg: dict[str, Any] = field(default_factory=dict)
    contextual: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None
    kd: tuple[float, ...] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    loss: str = 'TRGLoss'
    base: str = 'KDLoss'
    stop: int | None = None
    falls_until: float | None = None
    teacher_trains: bool = False

    @property
    def name(self) -> str:
        """Axis and value."""
        return f'{self.axis}={self.value}' if self.axis else ''


UNCHANGED = Variant()


def _trg(axis: str, *values: Any) -> tuple[Variant, ...]:
    return tuple(Variant(axis, str(value), trg={axis: value}) for value in values)


def _dynamic(start: float, end: float) -> Variant:
    schedule = {'start': start, 'end': end, 'schedule': 'cosine'}
    return Variant('temperature', f'{start:g} to {end:g}', trg={'temperature': schedule})


def _normalized(temperature: float, weight: float) -> Variant:
    return Variant(
        'normalized contextual',
        f'temperature {temperature:g}',
        'kd+contextual',
        contextual={'normalize_tokens': True, 'temperature': temperature},
        weights=(weight,),
    )


def _also_of_kd(axis: str, value: Any, *others: str, **change: Any) -> tuple[Variant, ...]:
    return tuple(Variant(axis, str(value), method, **change) for method in ('kd', 'kd+trg', *others))


# A change that plain KD knows, too, is made to both.
VARIANTS = (
    *_trg('num_neighbors', 2, 4, 16, 32),
    *_trg('sigma', 0.1, 0.25, 1.0, 2.0),
    *_trg('tokens_per_image', 2, 4, 16, 32),
    *_trg('kl_direction', 'student_teacher'),
    # Recorded under the name that `row_distribution: 'softmax_edges'` had.
    Variant('affinity_support', 'neighbors', trg={'row_distribution': 'softmax_edges', 'local_reduction': 'mean'}),
    *_trg('normalize_tokens', False),
    *_trg('temperature', 0.05, 0.1, 0.2, 0.5),
    _dynamic(0.5, 0.05),
    _dynamic(0.2, 0.05),
    _dynamic(0.1, 0.5),
    *_also_of_kd('epochs', 36, 'kd+local', 'kd+at', epochs=36),
    *(Variant('epochs', '36', epochs=36, weights=weights) for weights in ((1.0, 0.3), (0.3, 1.0))),
    *_also_of_kd('batch_size', 64, batch_size=64),
    *_also_of_kd('batch_size', 256, batch_size=256),
    Variant('KDLoss', 'temperature 8', 'kd', weights=(0.1, 8.0)),
    Variant('KDLoss', 'temperature 8', kd=(0.1, 8.0)),
    Variant('teacher', 'training mode', 'kd+local', teacher_trains=True),
    Variant('teacher', 'of other images', 'kd+local', loss='TRGLossOfOtherImages'),
    _normalized(0.1, 30.0),
    _normalized(0.1, 300.0),
    _normalized(0.5, 3000.0),
)
AXES = tuple(dict.fromkeys(variant.axis for variant in VARIANTS))
