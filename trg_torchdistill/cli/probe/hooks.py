"""Checks the module paths of a YAML on the real models: the host's own error for a wrong one names nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torchdistill.models.registry import AUXILIARY_MODEL_WRAPPER_DICT
from torchdistill.models.util import redesign_model
from torchdistill.models.wrapper import build_auxiliary_model_wrapper

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.probe.probe import module_at
from trg_torchdistill.cli.probe.weights import is_written, load_weights, read_checkpoint, source_of
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.keys import check_registered
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, explained


def check_module_paths(config: Config, models: Mapping[str, nn.Module]) -> None:
    """Checks each ``forward_hook`` and ``sequential`` path of every stage.

    Paths below an auxiliary model wrapper, such as ``student_model.layer4``, are looked up in a wrapper that is built
    around a copy of the model and thrown away. The random state is left as it was.

    Args:
        config: A checked YAML.
        models: For each side, ``teacher`` and ``student`` or ``model``, the model itself, on the CPU.

    Raises:
        TRGError: At the first path that is not a module, or the first ``src_ckpt`` of a stage that is not of its model.
    """
    for stage in config.stage_paths():
        for side, model in models.items():
            _check_stage_weights(config, (*stage, side), model)
            paths = _paths(config, (*stage, side))
            if paths:
                reference = wrapped(config, (*stage, side), copy.deepcopy(model))
                for yaml_path, module_path in paths:
                    _check_module_path(config, yaml_path, module_path, reference)


def _check_stage_weights(config: Config, path: tuple[str, ...], model: nn.Module) -> None:
    """Loads the ``src_ckpt`` of one side of a stage, unless the run writes that file, into a copy of its model."""
    source = source_of(config, path)
    if source is None or not Path(source).is_file() or is_written(config, path):
        return
    wanted = f'{config.where(*path, "src_ckpt")} to hold weights of the model of `{".".join(path)}`'
    checkpoint = read_checkpoint(source, wanted)
    copied = wrapped(config, path, copy.deepcopy(model))
    load_weights(redesign_model(copied, config.mapping(*path), path[-1]), checkpoint, source, wanted)


def _paths(config: Config, side: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    """Returns (place in the YAML, module path); paths of adaptations, which start with `+`, are not in the model."""
    places = [(*side, 'forward_hook', 'input'), (*side, 'forward_hook', 'output'), (*side, 'sequential')]
    found = []
    for place in places:
        value = config.get(*place) or []
        if not isinstance(value, list):
            raise TRGError(
                f'expected {config.where(*place)} to be a list of module paths, got {value!r}; write [{value!r}]'
            )
        found += [(place, path) for path in value if not path.startswith('+')]
    return found


def wrapped(config: Config, path: tuple[str, ...], model: nn.Module) -> nn.Module:
    """Returns the module in which the host looks up the paths of one side: its wrapper around the model, if it has one.

    The random state is left as it was.

    Raises:
        TRGError: If there is no such wrapper, or it refuses its arguments.
    """
    key = config.get(*path, 'auxiliary_model_wrapper', 'key')
    if key is None:
        return model
    check_registered(
        config, (*path, 'auxiliary_model_wrapper', 'key'), AUXILIARY_MODEL_WRAPPER_DICT, 'auxiliary model wrapper'
    )
    argument = 'teacher_model' if path[-1] == 'teacher' else 'student_model'
    cpu = torch.device('cpu')
    place = config.where(*path, 'auxiliary_model_wrapper', 'kwargs')
    with explained(f'`{key}` refused its arguments', f'change {place}'), preserved_random_state():
        given = {argument: model}
        wrapper: nn.Module = build_auxiliary_model_wrapper(
            config.mapping(*path), **given, device=cpu, device_ids=None, distributed=False
        )
    return wrapper


def _check_module_path(config: Config, place: tuple[str, ...], path: str, root: nn.Module) -> None:
    found = module_at(root, path)
    if isinstance(found, nn.Module):
        return
    known = [name for name, _ in root.named_modules() if name]
    top = [name for name, _ in root.named_children()]
    kind = 'nothing' if found is None else f'a {type(found).__name__} without a forward pass'
    raise TRGError(
        f'expected {config.where(*place)} to name modules of `{type(root).__name__}`, got {path!r}, where there is '
        f'{kind}{nearest(path, known)}; its top modules are {", ".join(f"`{name}`" for name in top)}'
    )
