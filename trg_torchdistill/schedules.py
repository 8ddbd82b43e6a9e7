"""Numbers that move from epoch to epoch: the dynamic temperature of the global term, and weights of terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from trg_torchdistill._checks import check_choice, check_integer, check_not_negative, check_positive, set_checked
from trg_torchdistill.errors import TRGError

SCHEDULES = ('cosine', 'linear', 'exponential')


@dataclass(frozen=True)
class WeightSchedule:
    """A weight that goes from ``start`` in the first epoch to ``end`` in the last one.

    With x = epoch / (num_epochs - 1): ``cosine`` is end + (start - end) * (1 + cos(pi*x)) / 2, ``linear`` is
    start + (end - start) * x, ``exponential`` is start * (end / start)^x.

    Args:
        start: Value of the first epoch, at least 0.
        end: Value of the last epoch, at least 0.
        schedule: ``cosine``, ``linear`` or ``exponential``, which needs two values > 0.
        until: The part of the training after which the value is ``end``, in (0, 1].

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range.

    Example:
        >>> WeightSchedule(1.0, 0.0, 'linear', until=0.5).at(epoch=5, num_epochs=11)
        0.0

    YAML::

        local_weight: {start: 1.0, end: 0.0, schedule: 'linear'}
    """

    start: float
    end: float
    schedule: str = 'cosine'
    until: float = 1.0
    expected: ClassVar[str] = 'a number >= 0 or {start, end, schedule}'

    def __post_init__(self) -> None:
        set_checked(self, start=self.number('start', self.start), end=self.number('end', self.end))
        check_choice('schedule', self.schedule, SCHEDULES)
        if self.schedule == 'exponential' and 0 in (self.start, self.end):
            raise TRGError(f"expected `start` and `end` of 'exponential' to be > 0, got {self.start} and {self.end}")
        set_checked(self, until=check_positive('until', self.until, 'a number > 0, at most 1'))
        if self.until > 1:
            raise TRGError(f'expected `until` to be a number > 0, at most 1, got {self.until}')

    @classmethod
    def number(cls, name: str, value: object) -> float:
        """Returns a value that may stand at an end, or in place of the schedule.

        Raises:
            TRGError: If it is no number in its range.
        """
        return check_not_negative(name, value, cls.expected if name not in ('start', 'end') else 'a number >= 0')

    def at(self, epoch: int, num_epochs: int) -> float:
        """Returns the value of an epoch, counted from 0; an epoch past the last one has the last one's.

        Raises:
            TRGError: If an argument is no integer; if ``epoch`` is negative or ``num_epochs`` less than 1.
        """
        epoch = check_integer('epoch', epoch, 0)
        num_epochs = check_integer('num_epochs', num_epochs, 1)
        x = min(epoch / (self.until * (num_epochs - 1)), 1.0) if num_epochs > 1 else 0.0
        if self.schedule == 'cosine':
            return self.end + (self.start - self.end) * (1 + math.cos(math.pi * x)) / 2
        if self.schedule == 'linear':
            return self.start + (self.end - self.start) * x
        return float(self.start * (self.end / self.start) ** x)


@dataclass(frozen=True)
class TemperatureSchedule(WeightSchedule):
    """A temperature that moves as a weight does: high early for coarse structure, low late for hard negatives.

    Its ends are > 0.

    Note:
        The paper says that the temperature is dynamic, not how it moves; the three curves are ours.

    Example:
        >>> round(TemperatureSchedule(0.5, 0.1).at(epoch=9, num_epochs=10), 6)
        0.1

    YAML::

        temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}
    """

    expected: ClassVar[str] = 'a number > 0 or {start, end, schedule}'

    @classmethod
    def number(cls, name: str, value: object) -> float:
        """Returns a temperature.

        Raises:
            TRGError: If it is no number > 0.
        """
        return check_positive(name, value, cls.expected if name not in ('start', 'end') else 'a number > 0')
