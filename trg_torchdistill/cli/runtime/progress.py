"""What a user sees of a training: a bar on a terminal, and one plain line for each epoch everywhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar('T')

SECONDS_BETWEEN_UPDATES = 0.5
BAR = '{bar:15} {desc}'
BAR_WIDTH = 17
MISSING_TQDM = "no progress bar: tqdm is not installed; pip install 'trg_torchdistill[cli]' brings it"


class Reporter:
    """Shows how far a training is: in plain lines, for files, pipes and terminals without tqdm."""

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int) -> None:
        """Tells that an epoch, counted from 0, begins."""

    def step(self, loss: float, num_images: int, terms: Callable[[], Mapping[str, float]]) -> None:
        """Tells that a step with ``num_images`` images is done; ``terms`` gives the means of the loss's terms."""

    def end_epoch(self) -> None:
        """Tells that an epoch's steps are over, finished or not."""

    def over(self, batches: Iterable[T], title: str, total: int) -> Iterator[T]:
        """Yields so many batches of something that is done once, before the training."""
        yield from batches

    def say(self, text: str) -> None:
        """Prints a line at once, also into a pipe."""
        print(text, flush=True)


class SilentReporter(Reporter):
    """Says nothing: for all processes but the first."""

    def say(self, text: str) -> None:
        """Prints nothing."""


class BarReporter(Reporter):
    """Draws tqdm's bar with images per second, the time that is left for all epochs, the loss and its terms.

    The terms are read from the device when the bar is drawn; of several processes they are the first one's.

    Raises:
        ImportError: If tqdm is not installed.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make_bar = tqdm
        self._began = time.perf_counter()
        self._epochs_seen = 0

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int) -> None:
        """Draws an empty bar."""
        self._title, self._epochs_left = f'epoch {epoch + 1}/{num_epochs}', num_epochs - epoch
        self._images, self._epoch_began = 0, time.perf_counter()
        self._began = self._began if self._epochs_seen else self._epoch_began
        self._bar = self._make_bar(
            total=num_steps, desc=self._title, bar_format=BAR, file=sys.stdout, leave=False,
            ncols=_columns(), mininterval=SECONDS_BETWEEN_UPDATES, miniters=1,
        )  # fmt: skip

    def step(self, loss: float, num_images: int, terms: Callable[[], Mapping[str, float]]) -> None:
        """Moves the bar; terms that do not fit beside it are left out."""
        self._images += num_images
        if not self._bar.update():
            return
        now = time.perf_counter()
        part = self._bar.n / self._bar.total
        left = (now - self._began) / (self._epochs_seen + part) * (self._epochs_left - part)
        parts = [f'{self._title} {self._bar.n}/{self._bar.total} {self._images / (now - self._epoch_began):.0f} img/s']
        parts += [f'{clock(left)} left loss {loss:.4g}', *(f'{name}={value:.3g}' for name, value in terms().items())]
        self._bar.ncols = _columns()
        self._bar.set_description_str(textwrap.shorten(' '.join(parts), self._bar.ncols - BAR_WIDTH, placeholder=''))

    def end_epoch(self) -> None:
        """Takes the bar away."""
        self._epochs_seen += 1
        self._bar.close()

    def over(self, batches: Iterable[T], title: str, total: int) -> Iterator[T]:
        """Draws a bar over the batches."""
        shown = self._make_bar(batches, desc=title, total=total, file=sys.stdout, leave=False, ncols=_columns())
        yield from shown


def choose_reporter(is_first: bool = True) -> Reporter:
    """Returns the reporter for standard output; without tqdm a terminal gets plain lines and is told so."""
    if not is_first:
        return SilentReporter()
    if not sys.stdout.isatty():
        return Reporter()
    try:
        return BarReporter()
    except ImportError:
        Reporter().say(MISSING_TQDM)
        return Reporter()


def epoch_line(line: dict[str, Any], num_epochs: int) -> str:
    """Returns the summary of an epoch, a line of ``metrics.jsonl``, at most 100 columns wide."""
    number = f'{line["epoch"] + 1:{len(str(num_epochs))}}/{num_epochs}'
    accuracies = f'{line["val_top1"]:.2f}/{line["val_top5"]:.2f}'
    left = clock(sum(line['seconds'].values()) * (num_epochs - line['epoch'] - 1))
    return (
        f'epoch {number}  loss {line["loss"]:<8.5g}  val top-1/5 {accuracies:13}  best {line["best_val_top1"]:<6.2f}  '
        f'{line["images_per_second"]:.0f} img/s  {left} left'
    )


def clock(seconds: float) -> str:
    """Returns a duration as h:mm:ss."""
    whole = round(seconds)
    return f'{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}'


def _columns() -> int:
    return shutil.get_terminal_size().columns
