"""Settings by name, for what writes YAMLs: whose edges, which rows and targets, and if there is a contextual term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trg_torchdistill.functional import GlobalTerm, LocalTerm


@dataclass(frozen=True)
class Recipe:
    """What a YAML says of the losses.

    Attributes:
        trg: Keywords of ``TRGLoss``.
        contextual_weight: Weight of a ``TokenContextualLoss``; 0 for none.
    """

    trg: Mapping[str, str]
    contextual_weight: float = 0.0


RECIPES = {
    'default': Recipe(
        {
            'edges': LocalTerm.edges,
            'row_distribution': LocalTerm.row_distribution,
            'global_targets': GlobalTerm.targets,
        }
    ),
    'literal': Recipe({'edges': 'own', 'row_distribution': 'softmax_all', 'global_targets': 'self'}, 1.0),
}
