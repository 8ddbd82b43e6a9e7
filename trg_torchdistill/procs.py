"""The registered processes: functions that the host calls around an epoch and a forward pass.

The host sets them as methods of its box classes, so ``self`` is a distillation box or a training box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
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
from trg_torchdistill.losses import RelationLoss
from trg_torchdistill.wrappers import outer_wrapper_error

logger = def_logger.getChild(__name__)


def forward_logits_only(
    model: nn.Module,
    sample_batch: Any,
    targets: Any = None,
    supp_dict: Any = None,
    **kwargs: Any,
) -> Tensor:
    """Calls the model with the batch and returns its logits [B, classes].

    A tuple of tensors (DeiT's class and distillation heads in training) gives their mean; an object or mapping with
    ``logits`` (Hugging Face's ``ModelOutput``, GoogLeNet's named tuple) gives those.

    Args:
        model: Teacher or student.
        sample_batch: Images.
        targets: Labels, not passed on.
        supp_dict: The host's supplementary values, not passed on.
        **kwargs: Whatever else a host's trainer passes, not passed on.

    Raises:
        TRGError: If the output holds no logits.

    YAML::

        teacher:
          forward_proc: 'forward_logits_only'
    """
    output = model(sample_batch)
    if isinstance(output, Mapping):
        output = output.get('logits', output)
    output = getattr(output, 'logits', output)
    if isinstance(output, (tuple, list)) and output and all(isinstance(head, Tensor) for head in output):
        output = torch.stack(tuple(output)).mean(0)
    if not isinstance(output, Tensor):
        raise TRGError(
            f'expected `{type(model).__name__}` to return logits: a tensor, a tuple of tensors or an object with '
            f'`.logits`, got {type(output).__name__}; change `forward_proc:` of this model'
        )
    return output


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
    if hasattr(self, 'teacher_model'):
        error = outer_wrapper_error(self.student_model)
        if error is not None:
            raise TRGError(error)
        default_pre_epoch_process_with_teacher(self, epoch=epoch, **kwargs)
        if not self.teacher_updatable:
            self.teacher_model.eval()
    else:
        default_pre_epoch_process_without_teacher(self, epoch=epoch, **kwargs)
    if epoch is not None:
        stage_epoch, num_epochs = epoch_in_stage(self, epoch)
        for loss in relation_losses(self.criterion).values():
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
    if hasattr(self, 'teacher_model'):
        default_post_epoch_process_with_teacher(self, metrics=metrics, **kwargs)
    else:
        default_post_epoch_process_without_teacher(self, metrics=metrics, **kwargs)
    for name, loss in relation_losses(self.criterion).items():
        values = [f'{term} {value:.6g}' for term, value in loss.epoch_means().items()]
        if loss.current_temperature is not None:
            values.append(f'temperature {loss.current_temperature:.4g}')
        logger.info('%s of `%s`: %s', type(loss).__name__, name, ', '.join(values))


def relation_losses(criterion: nn.Module) -> dict[str, RelationLoss]:
    """Returns our losses in the host's total loss, by their YAML names.

    The host keeps the terms in a plain dict of (loss, weight), where ``modules()`` does not see them.
    """
    losses = {}
    for name, (term, _) in getattr(criterion, 'term_dict', {}).items():
        for module in term.modules():
            if isinstance(module, RelationLoss):
                losses[name] = module
    return losses


def epoch_in_stage(box: Any, epoch: int) -> tuple[int, int]:
    """Returns the epoch counted from the start of the running stage, and the stage's number of epochs."""
    if not hasattr(box, 'stage_number'):
        return epoch, box.num_epochs
    num_epochs = box.train_config[f'stage{box.stage_number}']['num_epochs']
    return epoch - (box.stage_end_epoch - num_epochs), num_epochs
