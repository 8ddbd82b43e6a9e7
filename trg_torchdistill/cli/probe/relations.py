"""The relation losses of a YAML, ours and those that other packages registered, built from its keywords."""

from __future__ import annotations

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import explained
from trg_torchdistill.losses import RelationLoss
from trg_torchdistill.registration import relation_loss_classes


def relations_in(config: Config, stage: tuple[str, ...]) -> dict[str, RelationLoss]:
    """Returns the relation losses of a stage by the names of their terms.

    Raises:
        TRGError: If one cannot be built.
    """
    classes, found = relation_loss_classes(), {}
    terms = (*stage, 'criterion', 'kwargs', 'sub_terms')
    for name, term in (config.get(*terms) or {}).items():
        criterion = term['criterion']
        if isinstance(criterion, dict) and criterion['key'] in classes:
            with explained(f'building {config.where(*terms, name, "criterion")} failed'):
                found[str(name)] = classes[criterion['key']](**criterion.get('kwargs') or {})
    return found
