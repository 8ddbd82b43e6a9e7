"""The dynamic temperature of the global term: high early for coarse structure, low late for hard negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trg_torchdistill._checks import check_choice, check_integer, check_positive

SCHEDULES = ('cosine', 'linear', 'exponential')


@dataclass(frozen=True)
class TemperatureSchedule:
    """A temperature that goes from ``start`` in the first epoch to ``end`` in the last one.

    With x = epoch / (num_epochs - 1): ``cosine`` is end + (start - end) * (1 + cos(pi*x)) / 2, ``linear`` is
    start + (end - start) * x, ``exponential`` is start * (end / start)^x.

    Args:
        start: Temperature of the first epoch, > 0.
        end: Temperature of the last epoch, > 0.
        schedule: ``cosine``, ``linear`` or ``exponential``.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range.

    Note:
        The paper says that the temperature is dynamic, not how it moves; the three curves are ours.

    Example:
        >>> round(TemperatureSchedule(0.5, 0.1).at(epoch=9, num_epochs=10), 6)
        0.1

    YAML::

        temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}
    """

    start: float
    end: float
    schedule: str = 'cosine'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'start', check_positive('start', self.start))
        object.__setattr__(self, 'end', check_positive('end', self.end))
        check_choice('schedule', self.schedule, SCHEDULES)

    def at(self, epoch: int, num_epochs: int) -> float:
        """Returns the temperature of an epoch, counted from 0; an epoch past the last one has the last one's.

        Raises:
            TRGError: If an argument is no integer; if ``epoch`` is negative or ``num_epochs`` less than 1.
        """
        epoch = check_integer('epoch', epoch, 0)
        num_epochs = check_integer('num_epochs', num_epochs, 1)
        x = min(epoch / (num_epochs - 1), 1.0) if num_epochs > 1 else 0.0
        if self.schedule == 'cosine':
            return self.end + (self.start - self.end) * (1 + math.cos(math.pi * x)) / 2
        if self.schedule == 'linear':
            return self.start + (self.end - self.start) * x
        return float(self.start * (self.end / self.start) ** x)
