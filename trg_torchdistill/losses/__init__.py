"""The losses that a YAML names: ``TRGLoss`` and ``TokenContextualLoss``."""

from trg_torchdistill.losses.contextual import TokenContextualLoss
from trg_torchdistill.losses.relation import RelationLoss
from trg_torchdistill.losses.trg import TRGLoss

__all__ = ['RelationLoss', 'TRGLoss', 'TokenContextualLoss']
