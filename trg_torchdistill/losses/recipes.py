"""Settings of ``TRGLoss`` by name, for what writes YAMLs: each says whose edges, which rows and which targets."""

from __future__ import annotations

from trg_torchdistill.functional import GlobalTerm, LocalTerm

RECIPES = {
    'default': {
        'edges': LocalTerm.edges,
        'row_distribution': LocalTerm.row_distribution,
        'global_targets': GlobalTerm.targets,
    },
    'literal': {'edges': 'own', 'row_distribution': 'softmax_all', 'global_targets': 'self'},
}
