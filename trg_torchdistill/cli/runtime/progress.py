"""What a user sees of a training: a bar on a terminal, and one plain line for each epoch everywhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_UPDATES = 0.5
BAR_WIDTH = 15
MISSING_RICH = "no progress bar: rich is not installed; pip install 'trg_torchdistill[cli]' brings it"


class Reporter(Protocol):
    """Shows how far a training is."""

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int) -> None:
        """Tells that an epoch, counted from 0, begins."""

    def step(self, loss: float, num_images: int, terms: Callable[[], Mapping[str, float]]) -> None:
        """Tells that a step with ``num_images`` images is done; ``terms`` gives the means of the loss's terms."""

    def end_epoch(self) -> None:
        """Tells that an epoch's steps are over, finished or not."""

    def say(self, text: str) -> None:
        """Prints a line."""


class PlainReporter:
    """Prints lines, without bars and escape codes: for files, pipes and terminals without rich."""

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int) -> None:
        """Prints nothing."""

    def step(self, loss: float, num_images: int, terms: Callable[[], Mapping[str, float]]) -> None:
        """Prints nothing."""

    def end_epoch(self) -> None:
        """Prints nothing."""

    def say(self, text: str) -> None:
        """Prints a line at once, also into a pipe."""
        print(text, flush=True)


class SilentReporter(PlainReporter):
    """Says nothing: for all processes but the first."""

    def say(self, text: str) -> None:
        """Prints nothing."""


class BarReporter:
    """Draws a bar with the loss, its terms, images per second and the time that is left for all epochs.

    The terms are read from the device at most twice a second; of several processes they are the first one's.

    Raises:
        TRGError: If rich is not installed.
    """

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._columns = (
            TextColumn('epoch {task.description}'),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn('{task.fields[status]}'),
        )
        self._make_bar = Progress
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began: float | None = None
        self._epochs_seen = 0
        self._epoch = self._num_epochs = self._num_steps = 0
        self._steps = self._images = 0
        self._epoch_began = self._shown = 0.0

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int) -> None:
        """Draws an empty bar."""
        now = time.perf_counter()
        self._began = now if self._began is None else self._began
        self._epoch, self._num_epochs, self._num_steps = epoch, num_epochs, num_steps
        self._steps, self._images = 0, 0
        self._epoch_began, self._shown = now, 0.0
        self._bar = self._make_bar(*self._columns, transient=True)
        self._task = self._bar.add_task(f'{epoch + 1}/{num_epochs}', total=num_steps, status='')
        self._bar.start()

    def step(self, loss: float, num_images: int, terms: Callable[[], Mapping[str, float]]) -> None:
        """Moves the bar."""
        self._steps += 1
        self._images += num_images
        now = time.perf_counter()
        if self._bar is None or self._task is None or now - self._shown < SECONDS_BETWEEN_UPDATES:
            return
        self._shown = now
        speed = self._images / (now - self._epoch_began)
        start = f'{speed:.0f} img/s  {clock(self._seconds_left(now))} left  loss {loss:.4g}'
        fixed = len(f'epoch {self._epoch + 1}/{self._num_epochs}  {self._steps}/{self._num_steps}  ') + BAR_WIDTH
        status = fitted(start, terms(), self._bar.console.width - fixed)
        self._bar.update(self._task, completed=self._steps, status=status)

    def end_epoch(self) -> None:
        """Takes the bar away."""
        self._epochs_seen += 1
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Prints a line; no bar is drawn between epochs."""
        print(text, flush=True)

    def _seconds_left(self, now: float) -> float:
        """Returns the time for the remaining epochs at the mean speed so far, validation included."""
        done = self._epochs_seen + self._steps / self._num_steps
        left = self._num_epochs - self._epoch - self._steps / self._num_steps
        return (now - (self._began or now)) / done * left


def choose_reporter(is_first: bool = True) -> Reporter:
    """Returns the reporter for standard output; without rich a terminal gets plain lines and is told so.

    Args:
        is_first: Whether this is the process that speaks for all.
    """
    if not is_first:
        return SilentReporter()
    if not sys.stdout.isatty():
        return PlainReporter()
    try:
        return BarReporter()
    except ImportError:
        reporter = PlainReporter()
        reporter.say(MISSING_RICH)
        return reporter


def epoch_line(line: dict[str, Any], num_epochs: int) -> str:
    """Returns the summary of an epoch, at most 100 columns wide.

    Args:
        line: What is written to ``metrics.jsonl``.
        num_epochs: Number of epochs of the whole training.
    """
    number = f'{line["epoch"] + 1:{len(str(num_epochs))}}/{num_epochs}'
    accuracies = f'{line["val_top1"]:.2f}/{line["val_top5"]:.2f}'
    left = clock(sum(line['seconds'].values()) * (num_epochs - line['epoch'] - 1))
    return (
        f'epoch {number}  loss {line["loss"]:<8.5g}  val top-1/5 {accuracies:13}  best {line["best_val_top1"]:<6.2f}  '
        f'{line["images_per_second"]:.0f} img/s  {left} left'
    )


def fitted(start: str, terms: Mapping[str, float], width: int) -> str:
    """Returns ``start`` and as many of the terms after it as fit into ``width`` columns."""
    text = start
    for name, value in terms.items():
        longer = f'{text}  {name} {value:.3g}'
        if len(longer) > width:
            break
        text = longer
    return text


def clock(seconds: float) -> str:
    """Returns a duration as h:mm:ss."""
    whole = round(seconds)
    return f'{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}'
