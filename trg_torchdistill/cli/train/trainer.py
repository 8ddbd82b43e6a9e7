"""The loop over the epochs: train, validate, keep the best weights, keep the state."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trg_torchdistill.cli.data.reading import count_each_image_once, read
from trg_torchdistill.cli.measure.evaluation import evaluate
from trg_torchdistill.cli.measure.run_files import Progress, RunFiles
from trg_torchdistill.cli.probe.forward import forward_loss, outputs_explained
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.precision import Precision
from trg_torchdistill.cli.runtime.processes import Processes, StopSignals
from trg_torchdistill.cli.runtime.progress import Reporter, epoch_line
from trg_torchdistill.cli.train.checkpoint import training_state
from trg_torchdistill.cli.train.metrics import TermMeter, learning_rate_of, temperature_of
from trg_torchdistill.cli.train.parallel import join_stage
from trg_torchdistill.cli.train.tracker import Tracker
from trg_torchdistill.cli.train.views import Views
from trg_torchdistill.errors import RunError, TRGError, explained
from trg_torchdistill.files import save, write_json_lines
from trg_torchdistill.host import Box


@dataclass
class Trainer:
    """Trains a box to its last epoch; after every epoch the run can be stopped and continued exactly.

    Attributes:
        box: Distillation or training box. In a multi-stage training it replaces its models, optimizer and criterion.
        student: The plain student, which is validated and saved.
        config: The YAML; its text is kept in the state to find changes.
        args: Plain values of the command line, kept with the best weights.
        is_new: Whether no state of an earlier run is continued.
        views: Stored views, of which each epoch reads one of each image; None where the teacher runs.
        has_stepped: Whether weights have changed.
        joined_stage: Number of the stage that several processes have made their common one.
    """

    box: Box
    student: nn.Module
    files: RunFiles
    progress: Progress
    config: Config
    args: dict[str, Any]
    reporter: Reporter
    placement: Placement
    tracker: Tracker
    is_new: bool
    views: Views | None = None
    has_stepped: bool = False
    joined_stage: int = 0

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return self.placement.processes

    @property
    def precision(self) -> Precision:
        """Precision of the forward processes."""
        return self.placement.precision

    def save_state(self, progress: Progress) -> None:
        """Writes ``last.pt``, and only then takes ``progress`` for reached."""
        state = training_state(self.box, progress, self.config.text, self.args, self.processes, self.precision)
        if self.processes.is_first:
            save(state, self.files.last)
        self.progress = progress

    def train(self) -> None:
        """Trains all epochs that are not done yet.

        Raises:
            RunError: If a loss is NaN or infinite; ``last.pt`` is of the epoch before.
            TRGError: If the training loader gives no batch, or processes would not share what they train.
            KeyboardInterrupt: After Ctrl-C; of several processes in the same step of all.
        """
        signals = StopSignals(self.processes)
        try:
            with signals:
                for epoch in range(self.progress.epochs_done, self.box.num_epochs):
                    self._run_epoch(epoch, signals)
                self._stop_if_told(self.processes.total(torch.tensor([float(signals.received)]))[0])
        except Exception as error:
            self._stop_if_told(signals.interrupted, error)  # it took away a worker of the loader, or another process
            leaves_a_run = self.has_stepped or not self.is_new or isinstance(error, RunError)
            if self.processes.is_first and not leaves_a_run:  # a corrected YAML starts without an option
                self.files.last.unlink(missing_ok=True)
                self.files.metrics.unlink(missing_ok=True)
            raise

    def _stop_if_told(self, told: float, cause: Exception | None = None) -> None:
        if told:
            raise KeyboardInterrupt from cause

    def _run_epoch(self, epoch: int, signals: StopSignals) -> None:
        began = time.perf_counter()
        stage = self.box.stage
        if self.processes.are_several and stage != self.joined_stage:
            join_stage(self.box, self.config, self.processes)
            self.joined_stage = stage
        with explained(f'the pre-epoch process of epoch {epoch + 1} failed'):
            self.box.pre_epoch_process(epoch=epoch)
        if self.views is not None:
            self.views.start_epoch(epoch)
        with TermMeter(self.box.criterion) as meter:
            loss, num_images = self._train_steps(epoch, meter, signals)
        trained = time.perf_counter()
        # as the wrapped models do before their next step
        self.processes.copy_from_first(self.box.modules().values(), only_buffers=True)
        loader = count_each_image_once(self.box.val_data_loader)
        accuracy = evaluate(
            self.student, read(loader, self.config), self.placement.device, self.processes, self.precision
        )
        validated = time.perf_counter()
        best_value, best_epoch = self.progress.best_value, self.progress.best_epoch
        if accuracy.top1 > best_value:
            best_value, best_epoch = accuracy.top1, epoch
            if self.processes.is_first:
                best = {'model': self.student.state_dict(), 'best_value': best_value, **self.box.optimizer_state()}
                save({**best, 'args': self.args}, self.files.best)  # as the example trainer writes it
        line = {
            'epoch': epoch,
            'loss': loss,
            'terms': meter.means_over(self.processes),
            'temperature': temperature_of(self.box.criterion),
            'lr': learning_rate_of(self.box.optimizer),
            'val_top1': accuracy.top1,
            'val_top5': accuracy.top5,
            'best_val_top1': best_value,
            'seconds': {'train': trained - began, 'val': validated - trained},
            'images_per_second': num_images / (trained - began),
        }
        if self.precision.scales_gradients:
            line['skipped_steps'] = self.precision.skipped_steps
            self.precision.skipped_steps = 0
        # the scheduler wants `mode: 'max'` then, which was checked
        metrics = {'metrics': accuracy.top1} if isinstance(self.box.lr_scheduler, ReduceLROnPlateau) else {}
        with explained('the post-epoch process failed'):
            self.box.post_epoch_process(**metrics)
        self.tracker.end_epoch(epoch, accuracy.top1, accuracy.top5)
        history = [*self.progress.history, line]
        self.save_state(Progress(epoch + 1, best_value, best_epoch, history, self.progress.saves_teacher))
        if self.processes.is_first:
            write_json_lines(self.files.metrics, history)
        self.reporter.say(epoch_line(line, self.box.num_epochs))

    def _train_steps(self, epoch: int, meter: TermMeter, signals: StopSignals) -> tuple[float, int]:
        """Trains on every batch of the epoch; returns the mean loss and the number of images, of all processes."""
        loader, device = self.box.train_data_loader, self.placement.device
        total, num_steps, num_images = 0.0, 0, 0
        self.reporter.start_epoch(epoch, self.box.num_epochs, len(loader))
        self.tracker.start_epoch(epoch, len(loader))
        try:
            for images, targets, supplement in read(loader, self.config):
                images, targets = images.to(device), targets.to(device)
                batch = (images, targets, supplement)
                with self.precision.autocast(), outputs_explained(self.config, self.box, batch):
                    loss = forward_loss(self.box, *batch)
                value = self._mean_loss(loss, signals)
                if not math.isfinite(value):
                    raise RunError(self._diagnosis(epoch, num_steps, value, meter.not_finite()))
                with explained(f'the backward pass or the optimizer failed in epoch {epoch + 1}, step {num_steps + 1}'):
                    self.precision.post_forward_process(self.box, loss)
                self.has_stepped = True
                batch_size = len(images) * self.processes.size
                total, num_steps, num_images = total + value, num_steps + 1, num_images + batch_size
                self.reporter.step(value, batch_size, meter.means)
                self.tracker.step(value, batch_size, self.box.optimizer)
        finally:
            self.reporter.end_epoch()
        if num_steps == 0:
            raise TRGError(
                'expected the training loader to give at least one batch, got none; lower `batch_size:` or set '
                '`drop_last: False` in `train_data_loader`'
            )
        return total / num_steps, num_images

    def _mean_loss(self, loss: torch.Tensor, signals: StopSignals) -> float:
        """Returns the loss, of several processes the mean, which is finite only if all are.

        Raises:
            KeyboardInterrupt: If any of several processes was told to stop.
        """
        if not self.processes.are_several:
            return float(loss.item())
        values = torch.stack([loss.detach().double(), loss.new_tensor(signals.received, dtype=torch.float64)])
        value, told_to_stop = self.processes.total(values)
        self._stop_if_told(told_to_stop)
        return value / self.processes.size

    def _diagnosis(self, epoch: int, step: int, value: float, terms: list[str]) -> str:
        found = self.processes.gathered(terms)
        names = [f'`{name}`' for name in dict.fromkeys(name for terms in found for name in terms)]
        culprits = ', '.join(names) or 'no single term, only their weighted sum'
        if self.processes.are_several and names:
            culprits += f', in process {", ".join(str(rank) for rank, terms in enumerate(found) if terms)}'
        return (
            f'the loss is {value} in epoch {epoch + 1}, step {step + 1}; not finite: {culprits}. Training stopped '
            f'before the weights changed; {self.files.last} keeps the state after epoch {self.progress.epochs_done}. '
            'Try a lower learning rate, `max_grad_norm:` under `optimizer:`, or a lower weight of that term'
            + ('' if self.precision.name is None else f', or train without `--amp {self.precision.name}`')
        )
