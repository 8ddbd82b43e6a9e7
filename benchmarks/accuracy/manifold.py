"""A rival that is no part of torchdistill, as a loss of a YAML: manifold distillation of patch tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from _references import NUM_RANDOM, manifold_loss
from torchdistill.losses.registry import register_mid_level_loss

from trg_torchdistill.io import IoDict
from trg_torchdistill.losses.relation import RelationLoss, Terms


@register_mid_level_loss
class ManifoldLoss(RelationLoss):
    """``manifold_loss`` on the tokens of one pair of features; the tokens it draws are others in every step."""

    summary: ClassVar[str] = 'maps of cosines within an image, at a place, and of tokens drawn at random'

    def compute(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object) -> Terms:
        """The one term."""
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        student, teacher = tokens.student.float(), tokens.teacher.float()
        chosen = torch.randperm(student.shape[0] * student.shape[1])[:NUM_RANDOM]
        return {'manifold': (1.0, manifold_loss(student, teacher, chosen.to(student.device)))}
