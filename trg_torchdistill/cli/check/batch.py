"""Chooses a batch with which a step is quick on a CPU: known from shapes and counts, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trg_torchdistill.cli.check.unread_keys import Notice
from trg_torchdistill.cli.probe.build import relations_in
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.losses import RelationLoss

# Floating-point operations of a training step on the default batch: about a second on two CPU cores.
STEP_BUDGET = 80e9
MAX_BATCH_SIZE = 32
MIN_BATCH_SIZE = 4
MAX_MAP_BYTES = 2**32


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


def default_batch_size(
    probes: Mapping[str, ModelProbe], wanted: int, notices: list[Notice], most: int = MAX_BATCH_SIZE
) -> int:
    """Returns a batch size, at most ``wanted``, with which a step is quick on a CPU: a power of 2, or ``wanted``.

    Args:
        probes: The models by side; the student's operations count three times, for the backward pass.
        wanted: The YAML's batch size.
        notices: Gets a warning if the operations of a model cannot be counted; the batch is the smallest one then.
        most: The largest one, a power of 2 or not below ``wanted``.
    """
    affordable = MIN_BATCH_SIZE
    advice = f'the batch has {min(affordable, wanted)} images here, `--batch-size` sets another'
    try:
        with explained('the operations of a step cannot be counted', advice):
            total = sum(_operations(probe) * (3 if side == 'student' else 1) for side, probe in probes.items())
    except TRGError as error:
        notices.append(Notice('uncounted_step', str(error)))
        total = STEP_BUDGET
    while affordable < min(most, wanted) and affordable * 2 * total <= STEP_BUDGET:
        affordable *= 2
    return min(affordable, wanted)


def _operations(probe: ModelProbe) -> float:
    """Returns the operations of an image, from a batch like that of the probe, which the model took."""
    was_training = probe.model.training
    try:
        with torch.no_grad(), Operations() as counter:
            probe.batch.run(probe.model.eval())
    finally:
        probe.model.train(was_training)
    return float(counter.total / probe.batch.shape[0])


def check_maps(config: Config, stage: tuple[str, ...], probes: Mapping[str, ModelProbe], batch_size: int) -> int:
    """Returns the largest batch size, at most ``batch_size``, with which the N x N maps of a stage are quick.

    An image has about eight maps, with the softmax, the error and the gradients of both models; a batch here has at
    most 1 GiB of them.

    Raises:
        UnknownHereError: If the maps of one image need more than 4 GiB, so that it is better not to try.
    """
    for name, loss in relations_in(config, stage).items():
        if loss.maps is None:
            continue
        cells = min((_cells(loss, side, probe) for side, probe in probes.items()), default=0)
        needed = 8 * 4 * cells**2
        if needed > MAX_MAP_BYTES:
            where = config.where(*stage, 'criterion', 'kwargs', 'sub_terms', name, 'criterion', 'kwargs')
            raise UnknownHereError(
                f'not tried: the {loss.maps.name} of `{name}` has {cells} x {cells} numbers an image, about '
                f'{needed / 2**30:.0f} GiB each; choose later layers, or a larger `patch_size:`, in {where}. If the '
                'images are smaller than these, give `--input-size`'
            )
        batch_size = min(batch_size, max(1, 2**30 // max(needed, 1)))
    return batch_size


def _cells(loss: RelationLoss, side: str, probe: ModelProbe) -> int:
    """Returns the tokens of an image at the layer that a loss reads, 0 if that is not known."""
    path, tokenizer = loss.student_module_path, loss.student_tokenizer
    if side == 'teacher':
        path, tokenizer = loss.teacher_module_path, loss.teacher_tokenizer
    record = probe.record(path)
    return 0 if record is None else record.cells // tokenizer.patch_size**2
