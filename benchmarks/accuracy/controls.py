"""A loss that must not help if TRG works by what it says: imported by the YAMLs of `grid.py ablate`."""

from __future__ import annotations

from torch import Tensor
from torchdistill.losses.registry import register_mid_level_loss

from trg_torchdistill.losses.relation import IoDict
from trg_torchdistill.losses.trg import TRGLoss


@register_mid_level_loss
class TRGLossOfOtherImages(TRGLoss):
    """``TRGLoss`` with the teacher's tokens of the next image of the batch: a token graph without any knowledge."""

    def token_grids(self, student_io_dict: IoDict, teacher_io_dict: IoDict) -> tuple[Tensor, Tensor]:
        """The student's own grid, and the teacher's of another image."""
        student, teacher = super().token_grids(student_io_dict, teacher_io_dict)
        return student, teacher.roll(1, dims=0)
