"""The experiment tracker that ``tracker:`` of a YAML asks for, trackio or wandb, from torchdistill 1.1.5 on."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torchdistill.misc import log

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import Deferred, parse_deferred
from trg_torchdistill.errors import TRGError, explained


@dataclass
class Tracker:
    """Logs what torchdistill's own trainer does, under its names and steps; nothing without an engine.

    Attributes:
        engine: torchdistill's tracker, None in all processes but the first and without ``tracker:``.
        log_freq: Steps from one logged step to the next.
    """

    engine: Any = None
    log_freq: int = 1
    first: int = 0
    end: int = 0
    num_steps: int = 0
    since: float = 0.0

    def start_epoch(self, epoch: int, num_steps: int) -> None:
        """Tells that an epoch, counted from 0, begins; steps count over all epochs and never go back."""
        self.first = max(self.end, epoch * num_steps)
        self.end, self.num_steps, self.since = self.first + num_steps, 0, time.perf_counter()

    def step(self, loss: float, num_images: int, optimizer: Any) -> None:
        """Logs a training step if it is one in ``log_freq``."""
        now = time.perf_counter()
        if self.num_steps % self.log_freq == 0:
            rates = {'train/lr': optimizer.param_groups[0]['lr'], 'train/img/s': num_images / (now - self.since)}
            self._log({'train/loss': loss, **rates}, self.first + self.num_steps)
        self.num_steps, self.since = self.num_steps + 1, now

    def end_epoch(self, epoch: int, top1: float, top5: float) -> None:
        """Logs the validation after an epoch."""
        self._log({'val/acc1': top1, 'val/acc5': top5, 'epoch': epoch}, self.end)

    def _log(self, values: dict[str, Any], step: int) -> None:
        if self.engine is not None:
            with explained('logging with the `tracker:` of the YAML failed', 'remove the block to train without it'):
                self.engine.log(values, step=step)


def check_tracker(config: Config) -> None:
    """Checks ``tracker:`` without starting anything.

    Raises:
        TRGError: If it is malformed, this torchdistill has no trackers, or the package of the engine is not there.
    """
    if config.get('tracker') is None or config.mapping('tracker').get('engine') is None:
        return
    engine, where = config.get('tracker', 'engine'), config.where('tracker', 'engine')
    if not hasattr(log, 'setup_tracker'):
        raise TRGError(
            f'expected torchdistill 1.1.5 or later for {config.where("tracker")}, got {version("torchdistill")}, which '
            'has no trackers; upgrade torchdistill or remove the block'
        )
    if engine not in log.TrainingTracker.SUPPORTED_ENGINES:
        known = ', '.join(log.TrainingTracker.SUPPORTED_ENGINES)
        raise TRGError(f'expected {where} to be one of {known}, got {engine!r}; correct it or remove the block')
    if config.get('tracker', 'kwargs') is not None:
        config.mapping('tracker', 'kwargs')
    with explained(f'{where} cannot be imported', f'`pip install {engine}`, or remove the block'):
        importlib.import_module(engine)


@contextlib.contextmanager
def tracked(config: Config) -> Iterator[Tracker]:
    """Starts the tracker of a checked YAML, and finishes it after the block, also after an error and Ctrl-C.

    Raises:
        TRGError: If the engine cannot be started.
    """
    block = config.get('tracker')
    if not block:
        yield Tracker()
        return
    with explained(f'{config.where("tracker")} cannot be started', 'change its `kwargs:` or remove the block'):
        engine = log.setup_tracker(block, run_config=as_written(parse_deferred(config.text)))
    try:
        yield Tracker(engine, config.get('train', 'log_freq') or 1)
    finally:
        if engine is not None:
            engine.finish()


def as_written(value: Any) -> Any:
    """Returns a part of the YAML in plain values: a tag gives its content, not the object that it names."""
    if isinstance(value, Deferred):
        return as_written(value.content)
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    return [as_written(item) for item in value] if isinstance(value, list) else value
