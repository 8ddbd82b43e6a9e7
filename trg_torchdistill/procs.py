"""The registered processes: functions that the host calls around an epoch and a forward pass.

The host sets them as methods of its box classes, so ``self`` is a distillation box or a training box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchdistill.common.constant import def_logger
from torchdistill.core.interfaces.post_epoch_proc import (
    default_post_epoch_process_with_teacher,
    default_post_epoch_process_without_teacher,
)
from torchdistill.core.interfaces.pre_epoch_proc import (
    default_pre_epoch_process_with_teacher,
    default_pre_epoch_process_without_teacher,
)

from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.wrappers import check_outermost, plain_model

logger = def_logger.getChild(__name__)


def forward_logits_only(
    model: nn.Module,
    sample_batch: Any,
    targets: Any = None,
    supp_dict: Any = None,
    **kwargs: Any,
) -> Tensor:
    """Calls the model with the batch and returns its logits [B, classes].

    A tensor is taken as it is; an object or mapping with ``logits`` (Hugging Face's ``ModelOutput``, GoogLeNet's named
    tuple) gives those. Of a tuple or list it is decided in this order:

    1. If the model says that it has two heads, all are logits, and the mean is taken: ``distilled_training`` is set (as
       timm's DeiT has it) or there is a ``head_dist``. The same holds for several tensors under ``logits``.
    2. The logits are the only tensor [B, C], where C is ``num_classes`` if the model has that attribute.
    3. The logits are the only tensor [B, C] that a linear layer of the model makes of another one in the tuple.

    What is not decided then may be a feature: it is refused and never averaged.

    Args:
        model: Teacher or student.
        sample_batch: Images.
        targets: Labels, not passed on.
        supp_dict: The host's supplementary values, not passed on.
        **kwargs: Whatever else a host's trainer passes, not passed on.

    Raises:
        TRGError: If the output holds no logits, or it is not certain which they are.

    YAML::

        teacher:
          forward_proc: 'forward_logits_only'
    """
    return logits_in(model(sample_batch), model)


def logits_in(output: Any, model: nn.Module) -> Tensor:
    """Returns the logits in what a model returned, as :func:`forward_logits_only` decides.

    Raises:
        TRGError: If it holds none, or it is not certain which they are.
    """
    named = output.get('logits') if isinstance(output, Mapping) else getattr(output, 'logits', None)
    found = output if named is None else named
    if isinstance(found, Tensor):
        return found
    if isinstance(found, (tuple, list)):
        flat = [value for value in found if isinstance(value, Tensor) and value.ndim == 2]
        are_heads = len(flat) == len(found) and len({value.shape for value in flat}) == 1
        if are_heads and (named is not None or _says_two_heads(model)):
            return torch.stack(flat).mean(0)
        logits = _classifier_outputs(flat, model)
        if len(logits) == 1:
            return logits[0]
    raise TRGError(
        f'expected `{type(plain_model(model)).__name__}` to return logits, alone, as `.logits` or beside features that '
        f'can be told from them, got {outline(output)}; change `forward_proc:` of this model, or return `.logits`'
    )


def outline(value: object) -> str:
    """Returns what a model returned in brief: the types, and the shapes of the tensors."""
    if isinstance(value, Tensor):
        return f'{type(value).__name__} {list(value.shape)}'
    if isinstance(value, (tuple, list)):
        return f'{type(value).__name__} ({", ".join(outline(item) for item in value)})'
    return type(value).__name__


def _says_two_heads(model: nn.Module) -> bool:
    return any(getattr(part, 'distilled_training', hasattr(part, 'head_dist')) for part in model.modules())


@torch.no_grad()
def _classifier_outputs(values: Sequence[Tensor], model: nn.Module) -> list[Tensor]:
    """Returns which of several tensors [B, C] may be the logits."""
    num_classes = getattr(plain_model(model), 'num_classes', None)
    fitting = [value for value in values if num_classes in (None, value.shape[1])]
    if len(fitting) < 2:
        return fitting
    linears = [part for part in model.modules() if isinstance(part, nn.Linear)]
    return [
        value
        for value in fitting
        if any(_is_made_of(value, other, linear) for other in values if other is not value for linear in linears)
    ]


def _is_made_of(value: Tensor, feature: Tensor, linear: nn.Linear) -> bool:
    if (linear.in_features, linear.out_features) != (feature.shape[1], value.shape[1]):
        return False
    made = functional.linear(feature.to(linear.weight.dtype), linear.weight, linear.bias)  # no hook of it fires
    return torch.allclose(made.float(), value.float(), rtol=1e-3, atol=1e-3, equal_nan=True)


def pre_epoch_process_with_trg(self: Any, epoch: int | None = None, **kwargs: Any) -> None:
    """The host's default process; then a frozen teacher in eval mode; then every schedule is told its epoch.

    The host itself never puts the teacher in eval mode. In a multi-stage training epochs count from the start of the
    stage that is running.

    Args:
        self: Distillation or training box.
        epoch: Epoch, counted from 0 over all stages.
        **kwargs: Passed on to the host's process.

    Raises:
        TRGError: If ``Student4TRG`` was wrapped from outside.

    YAML::

        train:
          pre_epoch_process: 'pre_epoch_process_with_trg'
    """
    box = Box(self)
    if box.has_teacher:
        check_outermost(box.student)
        default_pre_epoch_process_with_teacher(self, epoch=epoch, **kwargs)
    else:
        default_pre_epoch_process_without_teacher(self, epoch=epoch, **kwargs)
    if box.teacher is not None and box.teacher_is_frozen:
        box.teacher.eval()
    if epoch is not None:
        stage_epoch, num_epochs = box.epoch_in_stage(epoch)
        for loss in relation_losses(box.criterion).values():
            loss.start_epoch(stage_epoch, num_epochs)


def post_epoch_process_with_trg(self: Any, metrics: Any = None, **kwargs: Any) -> None:
    """The host's default process; then the log gets the epoch's mean of each TRG term, before its weight.

    Under distributed training it is the main process's mean.

    Args:
        self: Distillation or training box.
        metrics: Metric for the host's ``ReduceLROnPlateau``.
        **kwargs: Passed on to the host's process.

    YAML::

        train:
          post_epoch_process: 'post_epoch_process_with_trg'
    """
    box = Box(self)
    if box.has_teacher:
        default_post_epoch_process_with_teacher(self, metrics=metrics, **kwargs)
    else:
        default_post_epoch_process_without_teacher(self, metrics=metrics, **kwargs)
    for name, loss in relation_losses(box.criterion).items():
        values = [f'{term} {value:.6g}' for term, value in loss.epoch_means().items()]
        if loss.current_temperature is not None:
            values.append(f'temperature {loss.current_temperature:.4g}')
        logger.info('%s of `%s`: %s', type(loss).__name__, name, ', '.join(values))
