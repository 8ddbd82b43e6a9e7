"""The loop over the epochs: train, validate, keep the best weights, keep the state."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trg_torchdistill.cli.checkpoint import Progress, best_checkpoint, save_atomically, training_state
from trg_torchdistill.cli.config import ConfigError
from trg_torchdistill.cli.evaluation import evaluate
from trg_torchdistill.cli.metrics import TermMeter, append_metrics, learning_rate_of, temperature_of
from trg_torchdistill.cli.progress import Reporter, epoch_line


class NotFiniteError(ArithmeticError):
    """The loss became NaN or infinite; the weights of that step were not changed."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run.

    Attributes:
        folder: RUN_DIR.
        best: Best weights in the example trainer's format, the student's ``dst_ckpt``.
    """

    folder: Path
    best: Path

    @property
    def last(self) -> Path:
        """The state of the training after its last finished epoch."""
        return self.folder / 'last.pt'

    @property
    def metrics(self) -> Path:
        """One line of JSON for each epoch."""
        return self.folder / 'metrics.jsonl'

    @property
    def test(self) -> Path:
        """The test results."""
        return self.folder / 'test.json'


@dataclass
class Trainer:
    """Trains a box to its last epoch; after every epoch the run can be stopped and continued exactly.

    Attributes:
        box: Distillation or training box. In a multi-stage training it replaces its models, optimizer and criterion.
        student: The plain student, which is validated and saved.
        device: Device of the batches.
        files: Where to write.
        progress: How far the training is.
        config_text: The YAML, kept in the state to find changes.
        args: Plain values of the command line, kept with the best weights.
        reporter: What the user sees.
    """

    box: Any
    student: nn.Module
    device: torch.device
    files: RunFiles
    progress: Progress
    config_text: str
    args: dict[str, Any]
    reporter: Reporter

    def save_state(self, progress: Progress) -> None:
        """Writes ``last.pt``, and only then takes ``progress`` for reached."""
        state = training_state(self.box, progress, self.config_text, self.args['seed'])
        save_atomically(state, self.files.last)
        self.progress = progress

    def train(self) -> None:
        """Trains all epochs that are not done yet.

        Raises:
            NotFiniteError: If a loss is NaN or infinite; ``last.pt`` is of the epoch before.
            ConfigError: If the training loader gives no batch.
        """
        for epoch in range(self.progress.epochs_done, self.box.num_epochs):
            self._run_epoch(epoch)

    def _run_epoch(self, epoch: int) -> None:
        began = time.perf_counter()
        self.box.pre_epoch_process(epoch=epoch)
        with TermMeter(self.box.criterion) as meter:
            loss, num_images = self._train_steps(epoch, meter)
        trained = time.perf_counter()
        accuracy = evaluate(self.student, self.box.val_data_loader, self.device)
        validated = time.perf_counter()
        best_value, best_epoch = self.progress.best_value, self.progress.best_epoch
        if accuracy.top1 > best_value:
            best_value, best_epoch = accuracy.top1, epoch
            save_atomically(best_checkpoint(self.box, self.student, best_value, self.args), self.files.best)
        line = {
            'epoch': epoch,
            'loss': loss,
            'terms': meter.means(),
            'temperature': temperature_of(self.box.criterion),
            'lr': learning_rate_of(self.box.optimizer),
            'val_top1': accuracy.top1,
            'val_top5': accuracy.top5,
            'best_val_top1': best_value,
            'seconds': {'train': trained - began, 'val': validated - trained},
            'images_per_second': num_images / (trained - began),
        }
        self._end_epoch(accuracy.top1)
        history = [*self.progress.history, line]
        progress = replace(
            self.progress, epochs_done=epoch + 1, best_value=best_value, best_epoch=best_epoch, history=history
        )
        self.save_state(progress)
        append_metrics(self.files.metrics, line)
        self.reporter.say(epoch_line(line, self.box.num_epochs))

    def _train_steps(self, epoch: int, meter: TermMeter) -> tuple[float, int]:
        """Trains on every batch of the epoch and returns the mean loss and the number of images."""
        loader = self.box.train_data_loader
        total, num_steps, num_images = 0.0, 0, 0
        self.reporter.start_epoch(epoch, self.box.num_epochs, len(loader))
        try:
            for images, targets, supplement in loader:
                images, targets = images.to(self.device), targets.to(self.device)
                loss = forward_loss(self.box, images, targets, supplement)
                value = loss.item()
                if not math.isfinite(value):
                    raise NotFiniteError(self._diagnosis(epoch, num_steps, value, meter.not_finite()))
                self.box.post_forward_process(loss=loss)
                total, num_steps, num_images = total + value, num_steps + 1, num_images + len(images)
                self.reporter.step(value, len(images), meter)
        finally:
            self.reporter.end_epoch()
        if num_steps == 0:
            raise ConfigError(
                'expected the training loader to give at least one batch, got none; lower `batch_size:` or set '
                '`drop_last: False` in `train_data_loader`'
            )
        return total / num_steps, num_images

    def _diagnosis(self, epoch: int, step: int, value: float, terms: list[str]) -> str:
        culprits = ', '.join(f'`{name}`' for name in terms) or 'no single term, only their weighted sum'
        return (
            f'the loss is {value} in epoch {epoch + 1}, step {step + 1}; not finite: {culprits}. Training stopped '
            f'before the weights changed; {self.files.last} keeps the state after epoch {self.progress.epochs_done}. '
            'Try a lower learning rate, `max_grad_norm:` under `optimizer:`, or a lower weight of that term'
        )

    def _end_epoch(self, val_top1: float) -> None:
        """Runs the post-epoch process; `ReduceLROnPlateau` gets the accuracy, so write `mode: 'max'` for it."""
        if isinstance(self.box.lr_scheduler, ReduceLROnPlateau):
            self.box.post_epoch_process(metrics=val_top1)
        else:
            self.box.post_epoch_process()


def forward_loss(box: Any, images: Any, targets: Any, supplement: Any) -> Any:
    """Returns the loss of a batch; explains the bare ``KeyError`` of the host's losses when a feature was not hooked.

    Raises:
        ConfigError: If a loss or wrapper misses a key.
    """
    try:
        return box.forward_process(images, targets, supplement)
    except KeyError as error:
        sides = {name: getattr(box, f'{name}_io_dict', None) for name in ('teacher', 'student', 'model')}
        hooked = {name: list(io_dict) for name, io_dict in sides.items() if io_dict is not None}
        raise ConfigError(
            f'a loss or wrapper expected a key {error} and found none; when it is a module path, `input` or '
            f'`output`, add the path to `forward_hook:` under `train`, where these are hooked now: {hooked} '
            '(--traceback shows what asked for it)'
        ) from error
