"""The models of a YAML before and after training, and the features that the pictures show."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.probe.build import build_with_weights
from trg_torchdistill.cli.probe.probe import find_module
from trg_torchdistill.cli.probe.weights import load_weights, read_checkpoint
from trg_torchdistill.cli.recipe.config import Config, import_packages, with_home
from trg_torchdistill.cli.recipe.deferred import load_deferred, resolve
from trg_torchdistill.cli.recipe.keys import check_config
from trg_torchdistill.cli.tasks.recognised import refuse_other_tasks
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.io import IoDict, first_tensor

TEACHER, BEFORE, AFTER = 'teacher', 'student before', 'student after'
BATCH_SIZE = 50


@dataclass(frozen=True)
class Model:
    """A model in eval mode, what the pictures call it, and its key in the YAML, or its name at timm or Hugging Face."""

    label: str
    key: str
    module: nn.Module

    @property
    def side(self) -> str:
        """``teacher`` or ``student``; no student is called ``teacher``."""
        return 'teacher' if self.label == TEACHER else 'student'


def read_config(path: str) -> Config:
    """Reads a YAML and carries out its tags, but builds no data set yet.

    Raises:
        TRGError: If the YAML would not train.
    """
    config = load_deferred(path)
    refuse_other_tasks(config, 'plot')
    import_packages(config)
    parts = {key: config.mapping(key) for key in ('models', 'train', 'test')}
    resolved = {key: resolve(part, (), 'write the value itself') for key, part in parts.items()}
    config = Config(config.path, config.text, with_home({**config.data, **resolved}))
    check_config(config)
    return config


def build_models(config: Config, checkpoints: Mapping[str, Path | None]) -> list[Model]:
    """Builds the teacher, if there is one, the student as training finds it, and the student with each checkpoint.

    The checkpoints are files by label, None for ``dst_ckpt`` of the YAML.

    Raises:
        TRGError: If a model cannot be built, or weights are missing or do not fit.
    """
    path = config.student_path
    models = [] if config.teacher_path is None else [_as_started(config, config.teacher_path, TEACHER)]
    before = _as_started(config, path, BEFORE)
    models.append(before)
    for label, file in checkpoints.items():
        place = config.where(*path, 'dst_ckpt') if file is None else '`--student`'
        source = str(Path(config.get(*path, 'dst_ckpt') if file is None else file).expanduser())
        wanted = f'{place} to hold trained weights of `{before.key}`'
        if not Path(source).exists():
            raise TRGError(
                f'expected {wanted}, got {source}, which does not exist; train first, or name the weights with '
                '`--student`'
            )
        trained = copy.deepcopy(before.module)
        load_weights(trained, read_checkpoint(source, wanted), source, wanted)
        models.append(Model(label, before.key, trained))
    return models


def _as_started(config: Config, path: tuple[str, ...], label: str) -> Model:
    names = [config.get(*path, 'kwargs', name) for name in ('model_name', 'model_type')]
    key = next(filter(None, names), config.get(*path, 'key'))
    return Model(label, str(key), build_with_weights(config, path)[0].eval())


@torch.no_grad()
def hooked_features(model: Model, paths: Iterable[str], images: Tensor) -> IoDict:
    """Returns what the host's hooks would keep of one batch [B, C, H, W]: {module path: {'input' | 'output': value}}.

    Nothing is wrapped around the model: ``student_model.layer4`` is its ``layer4``.

    Raises:
        TRGError: If there is no such module, or the model refuses the images.
    """
    found: dict[str, dict[str, Any]] = {path: {} for path in paths}
    with contextlib.ExitStack() as hooks:
        for path, kept in found.items():
            hooks.enter_context(_module(model, path).register_forward_hook(partial(_keep, kept)))
        with explained(f'the images through `{model.key}` failed'):
            model.module.to(images.device)(images)
    return found


def _keep(kept: dict[str, Any], module: nn.Module, value: Any, result: Any) -> None:
    kept.update(input=value, output=result)


def _module(model: Model, path: str) -> nn.Module:
    module = model.module if path == '.' else find_module(model.module, path)
    if module is None:
        known = [name for name, _ in model.module.named_modules()]
        raise TRGError(
            f'expected the module path {path!r} of a loss to name a module of `{model.key}`, without what the training '
            f'puts around it, got none{nearest(path, known)}; name a layer with `--{model.side}-layer`'
        )
    return module


@torch.no_grad()
def penultimate_features(model: Model, images: Tensor, device: torch.device) -> Tensor:
    """Returns what enters the last linear layer of a model, averaged over space: [B, D], on the CPU.

    A model without linear layers (a fully convolutional one) gives what enters its last convolution.

    Raises:
        TRGError: If the model has neither, or refuses the images.
    """
    modules = list(model.module.modules())
    kinds = [kind for kind in (nn.Linear, nn.Conv2d) if any(isinstance(module, kind) for module in modules)]
    if not kinds:
        raise TRGError(
            f'expected `{model.key}` to have a linear layer or a convolution, got none; leave the picture out with '
            '`--only`'
        )
    found, inputs = [], [torch.empty(0)]

    def keep(module: nn.Module, value: Any) -> None:
        if isinstance(module, kinds[0]) and (tensor := first_tensor(value)) is not None:
            inputs[0] = tensor

    with register_module_forward_pre_hook(keep), explained(f'the images through `{model.key}` failed'):
        for batch in torch.split(images, BATCH_SIZE):
            model.module.to(device)(batch.to(device))
            feature = inputs[0].float().cpu()
            if kinds[0] is nn.Conv2d:
                feature = feature.movedim(1, -1)
            found.append(feature.reshape(len(batch), -1, feature.shape[-1]).mean(1))
    return torch.cat(found)
