"""Settings by name, for what writes YAMLs: edges, rows, targets, temperature, and if there is a contextual term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trg_torchdistill.functional import GlobalTerm, LocalTerm

# What our results had, and the paper's dynamic temperature: docs/results.md.
FALLING = {'start': 0.5, 'end': 0.1, 'schedule': 'cosine'}


@dataclass(frozen=True)
class Recipe:
    """What a YAML says of the losses.

    Attributes:
        trg: Keywords of ``TRGLoss``; a mapping is a schedule, which a process must tell the epoch.
        contextual_weight: Weight of a ``TokenContextualLoss``; 0 for none.
    """

    trg: Mapping[str, Any]
    contextual_weight: float = 0.0


RECIPES = {
    'default': Recipe(
        {
            'edges': LocalTerm.edges,
            'row_distribution': LocalTerm.row_distribution,
            'global_targets': GlobalTerm.targets,
            'temperature': FALLING,
        }
    ),
    'literal': Recipe(
        {'edges': 'own', 'row_distribution': 'softmax_all', 'global_targets': 'self', 'temperature': FALLING},
        contextual_weight=1.0,
    ),
}
