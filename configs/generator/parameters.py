"""Prints the table of the models: ``python -m configs.generator.parameters``. Nothing is allocated or downloaded."""

from __future__ import annotations

import torch
import torchvision
from torchdistill.models.registry import MODEL_DICT

import trg_torchdistill  # noqa: F401  registers the models
from configs.generator.experiments import PAIRS, Model


def table() -> list[str]:
    """The lines of the table, in the order of the experiments."""
    import torchdistill.models.classification  # noqa: F401  registers the models of torchdistill

    seen: dict[tuple[str, int], str] = {}
    for recipe, pairs in PAIRS:
        for pair in pairs:
            for model in pair:
                entry = (model.name, recipe.num_classes)
                if entry not in seen:
                    seen[entry] = _row(model, recipe.num_classes)
    head = ['| model | key | classes | parameters | tokens at | features |', '|---|---|---|---|---|---|']
    return head + list(seen.values())


def _row(model: Model, num_classes: int) -> str:
    key = model.key or model.name
    builder = vars(torchvision.models).get(key) or MODEL_DICT[key]
    with torch.device('meta'):
        built = builder(**model.kwargs, num_classes=num_classes)
    count = sum(parameter.numel() for parameter in built.parameters())
    return f'| {model.name} | `{key}` | {num_classes} | {count:,} | `{model.layer}` | {model.width} |'


if __name__ == '__main__':
    print('\n'.join(table()))
