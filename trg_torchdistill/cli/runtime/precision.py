"""Mixed precision, ``--amp``: the forward process under autocast, and scaled gradients for float16."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
DEFAULT_PROCESS = 'default_post_forward_process'


class Precision:
    """How the models compute: in float32, or a part of their operations in the type that ``name`` says.

    Weights and optimizer stay in float32. TRG's losses leave autocast and compute in float32; the host's other losses
    do what torch's autocast does with their operations.
    """

    def __init__(self, name: str | None = None, device: torch.device | None = None) -> None:
        self.name = name
        self.skipped_steps = 0
        self._device_type = 'cpu' if device is None else device.type
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=name == 'fp16')

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients are scaled, and steps with an infinite gradient are skipped."""
        return self._scaler.is_enabled()

    def autocast(self) -> torch.autocast:
        """Returns the context of a forward pass."""
        return torch.autocast(self._device_type, DTYPES.get(self.name or ''), enabled=self.name is not None)

    def post_forward_process(self, box: Box, loss: Tensor) -> None:
        """Runs the box's post-forward process: backward, clipping, optimizer and step-wise scheduler.

        With scaled gradients it is the host's default written anew, since that has no place for a scaler: gradients are
        unscaled before ``max_grad_norm`` clips them; a step with an infinite gradient changes neither the weights nor
        the step-wise scheduler, and lowers the scale.
        """
        if not self.scales_gradients:
            box.post_forward_process(loss=loss)
            return
        box.stage_grad_count += 1
        torch.autograd.backward(self._scaler.scale(loss / box.grad_accum_step))
        if box.stage_grad_count % box.grad_accum_step != 0:
            return
        if box.max_grad_norm is not None:
            self._scaler.unscale_(box.optimizer)
            nn.utils.clip_grad_norm_(box.trained, box.max_grad_norm)
        scale = self._scaler.get_scale()
        self._scaler.step(box.optimizer)
        self._scaler.update()
        box.optimizer.zero_grad()
        if self._scaler.get_scale() < scale:
            self.skipped_steps += 1
            return
        if box.lr_scheduler is None or box.scheduling_step <= 0 or box.stage_grad_count % box.scheduling_step != 0:
            return
        if isinstance(box.lr_scheduler, CosineAnnealingWarmRestarts):
            box.lr_scheduler.step(box.stage_grad_count // box.scheduling_step)
        else:
            box.lr_scheduler.step()

    def state(self) -> dict[str, Any]:
        """Returns the scale and what it depends on, as plain values."""
        return {'name': self.name, 'scaler': self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues with the scale of :meth:`state`; the scale of a run that had none starts anew."""
        if state['scaler']:  # else nothing was scaled; older files say None
            self._scaler.load_state_dict(state['scaler'])


FLOAT32 = Precision()


def choose_precision(name: str | None, device: torch.device, config: Config) -> Precision:
    """Returns the precision for ``--amp``.

    Raises:
        TRGError: If the device cannot compute in it, or the YAML has a post-forward process that cannot be scaled.
    """
    if name is None:
        return FLOAT32
    wanted = f'expected `--device` to compute in the type of `--amp {name}`, got {device}'
    advice = 'choose another `--amp`, or leave it out'
    if name == 'bf16' and device.type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TRGError(f'{wanted}, a GPU without bfloat16; {advice}')
    with explained(wanted, advice), warnings.catch_warnings():
        warnings.simplefilter('error')  # torch disables autocast for a type that the device lacks, and only warns
        torch.autocast(device.type, DTYPES[name])
    for stage in config.stage_paths():
        process = config.get(*stage, 'post_forward_process')
        if name == 'fp16' and process not in (None, DEFAULT_PROCESS):
            raise TRGError(
                f'expected {config.where(*stage, "post_forward_process")} to be {DEFAULT_PROCESS!r} with `--amp fp16`, '
                f'whose gradients are scaled, got {process!r}; use `--amp bf16`'
            )
    return Precision(name, device)
