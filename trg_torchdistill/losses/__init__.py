"""The losses that a YAML names; :data:`LOSSES` is the one list of them."""

from trg_torchdistill.losses.contextual import TokenContextualLoss
from trg_torchdistill.losses.relation import RelationLoss
from trg_torchdistill.losses.trg import TRGLoss

LOSSES: tuple[type[RelationLoss], ...] = (TRGLoss, TokenContextualLoss)

__all__ = ['LOSSES', 'RelationLoss', 'TRGLoss', 'TokenContextualLoss']
