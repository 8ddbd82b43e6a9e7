"""Times the steps of the host's own box, with and without the TRG terms."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trg_torchdistill.cli.probe.forward import forward_loss
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.wrappers import Student4TRG


@dataclass(frozen=True)
class Cost:
    """Seconds of a step, the median of a few.

    Attributes:
        seconds: With all terms.
        without_trg: The same box without the TRG terms and their projections; None where there is nothing to compare.
        steps: Number of steps timed of each.
        threads: Number of threads.
    """

    seconds: float
    without_trg: float | None
    steps: int
    threads: int


def step_cost(box: Box, batches: Sequence[Any], steps: int) -> Cost:
    """Times steps, those with and without the TRG terms in turns, after one of each to warm up.

    Raises:
        TRGError: If a step fails or its loss is not finite.
    """
    compares = 0 < len(relation_losses(box.criterion)) < len(box.terms)
    whole, without = [], []
    for number in range(steps + 1):
        batch = batches[number % len(batches)]
        whole.append(_timed_step(box, batch, number + 2))
        if compares:
            with _without_trg(box):
                without.append(_timed_step(box, batch, number + 2))
    median_without = statistics.median(without[1:]) if compares else None
    return Cost(statistics.median(whole[1:]), median_without, steps, torch.get_num_threads())


@contextlib.contextmanager
def _without_trg(box: Box) -> Iterator[None]:
    """Takes the TRG terms and the projections out of a box; hooks stay, they cost nothing."""
    student = box.student
    if isinstance(student, Student4TRG):
        student.__dict__['secondary_forward'] = student.inner.secondary_forward
    try:
        with box.without(relation_losses(box.criterion)):
            yield
    finally:
        student.__dict__.pop('secondary_forward', None)


def _timed_step(box: Box, batch: Any, number: int) -> float:
    _synchronize(box.device)
    began = time.perf_counter()
    with explained(f'training step {number} failed'):
        loss = forward_loss(box, *batch)
        value = loss.detach()
        box.post_forward_process(loss=loss)
    _synchronize(box.device)
    seconds = time.perf_counter() - began
    if not math.isfinite(value.item()):
        raise TRGError(
            f'the loss is {value.item()} in step {number}, on random data; try a lower learning rate, `max_grad_norm:` '
            'under `optimizer:`, or lower weights of the terms'
        )
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
