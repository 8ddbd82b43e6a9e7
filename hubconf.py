"""The models of ``configs/official``, by the names of their YAMLs, for ``torch.hub``.

Example::

    model = torch.hub.load('PATH/OF/A/CHECKOUT', 'teacher', source='local')  # PATH: this folder
"""

from __future__ import annotations

import pathlib
from collections import abc

import torch
from torchdistill.models import registry

import trg_torchdistill  # noqa: F401  registers the models
from trg_torchdistill.cli.recipe import deferred

dependencies = ['torch', 'torchvision', 'torchdistill', 'yaml']


def _entry(path: pathlib.Path) -> abc.Callable[..., torch.nn.Module]:
    def build(pretrained: bool = True) -> torch.nn.Module:
        config = deferred.load_deferred(str(path))
        model: torch.nn.Module = registry.get_model(
            config.get(*config.student_path, 'key'), **config.get(*config.student_path, 'kwargs')
        )
        if pretrained:
            state = torch.load(path.with_suffix('.pt'), map_location='cpu', weights_only=True)
            model.load_state_dict(state.get('model', state))
        return model

    build.__doc__ = f'The model that {path.name} trained, for images [B, 3, 32, 32]; without ``pretrained``, untrained.'
    return build


globals().update(
    {path.stem: _entry(path) for path in (pathlib.Path(__file__).parent / 'configs' / 'official').rglob('*.yaml')}
)
