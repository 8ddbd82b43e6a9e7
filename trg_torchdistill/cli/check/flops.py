"""Chooses a batch with which a step is quick on a CPU: operations are counted, not timed, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trg_torchdistill.cli.check.unread_keys import Notice
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.errors import TRGError, explained

# Floating-point operations of a training step on the default batch: about a second on two CPU cores.
STEP_BUDGET = 80e9
MAX_BATCH_SIZE = 32
MIN_BATCH_SIZE = 4


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations inside a ``with`` block.

    torch's own counter shares them out to modules, and fails where one gets an expanded parameter as an argument.

    Attributes:
        total: Operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it, if torch knows how."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula: Callable[..., int] | None = flop_registry.get(getattr(func, '_overloadpacket', None))
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def default_batch_size(probes: Mapping[str, ModelProbe], wanted: int, notices: list[Notice]) -> int:
    """Returns a batch size, at most ``wanted``, with which a step is quick on a CPU: a power of 2, or ``wanted``.

    Args:
        probes: The models by side; the student's operations count three times, for the backward pass.
        wanted: The YAML's batch size.
        notices: Gets a warning if the operations of a model cannot be counted; the batch is the smallest one then.
    """
    affordable = MIN_BATCH_SIZE
    advice = f'the batch has {min(affordable, wanted)} images here, `--batch-size` sets another'
    try:
        with explained('the operations of a step cannot be counted', advice):
            total = sum(_operations(probe) * (3 if side == 'student' else 1) for side, probe in probes.items())
    except TRGError as error:
        notices.append(Notice('uncounted_step', str(error)))
        total = STEP_BUDGET
    while affordable * 2 <= MAX_BATCH_SIZE and affordable * 2 * total <= STEP_BUDGET:
        affordable *= 2
    return min(affordable, wanted)


def _operations(probe: ModelProbe) -> float:
    """Returns the operations of an image, from a batch like that of the probe, which the model took."""
    was_training = probe.model.training
    try:
        with torch.no_grad(), Operations() as counter:
            probe.model.eval()(torch.zeros(probe.image_shape))
    finally:
        probe.model.train(was_training)
    per_image: float = counter.total / probe.image_shape[0]
    return per_image
