"""The models of a YAML before and after training, and the features that the pictures show."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torchdistill.common.module_util import get_module

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.probe.build import build_with_weights
from trg_torchdistill.cli.probe.weights import load_weights, read_checkpoint
from trg_torchdistill.cli.recipe.config import Config, import_packages, with_home
from trg_torchdistill.cli.recipe.deferred import load_deferred, resolve
from trg_torchdistill.cli.recipe.keys import check_config
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.io import IoDict, first_tensor

TEACHER, BEFORE, AFTER = 'teacher', 'student before', 'student after'
BATCH_SIZE = 50
CLASSIFIERS = (nn.Linear, nn.Conv2d)
PREFIXES = ('student_model.', 'teacher_model.')


def read_config(path: str) -> Config:
    """Reads a YAML and carries out its tags, but builds no data set yet.

    Raises:
        TRGError: If the YAML would not train.
    """
    config = load_deferred(path)
    import_packages(config)
    parts = {key: config.mapping(key) for key in ('models', 'train', 'test')}
    resolved = {key: resolve(part, (), 'write the value itself') for key, part in parts.items()}
    config = Config(config.path, config.text, with_home({**config.data, **resolved}))
    check_config(config)
    return config


def build_dataset(config: Config, name: str | None) -> Any:
    """Builds one data set of a YAML, by default the one of its test.

    Raises:
        TRGError: If there is no such data set, or it cannot be built.
    """
    known = config.mapping('datasets')
    key = config.get('test', 'test_data_loader', 'dataset_id') if name is None else name
    if key not in known:
        raise TRGError(
            f'expected `--dataset` to be one of the keys under `datasets:`, {list(known)}, got {key!r}'
            f'{nearest(key, list(known))}'
        )
    return resolve(known[key], (), f'look at {config.where("datasets")}')


@dataclass(frozen=True)
class Model:
    """One model of the pictures.

    Attributes:
        label: What the pictures call it.
        key: Key of the model in the YAML; for those of timm and Hugging Face their name there.
        module: The model, in eval mode.
        is_teacher: Whether it is the teacher.
    """

    label: str
    key: str
    module: nn.Module
    is_teacher: bool = False

    @property
    def caption(self) -> str:
        """Label and key on two lines."""
        return f'{self.label}\n({self.key})'


def teacher_of(models: Sequence[Model]) -> Model | None:
    """Returns the teacher among the models, None if there is none."""
    return next((model for model in models if model.is_teacher), None)


def build_models(config: Config, checkpoints: Mapping[str, Path | None], device: torch.device) -> list[Model]:
    """Builds the teacher, if there is one, the student as training finds it, and the student with each checkpoint.

    Args:
        config: A YAML of :func:`read_config`.
        checkpoints: Files of the trained student's weights by label, None for ``dst_ckpt`` of the YAML.
        device: Device of the models.

    Raises:
        TRGError: If a model cannot be built, or weights are missing or do not fit.
    """
    models = []
    if config.teacher_path is not None:
        teacher, _ = build_with_weights(config, config.teacher_path)
        models.append(Model(TEACHER, _name(config, config.teacher_path), teacher, is_teacher=True))
    path = config.student_path
    key, (student, _) = _name(config, path), build_with_weights(config, path)
    models.append(Model(BEFORE, key, student))
    for label, file in checkpoints.items():
        place = config.where(*path, 'dst_ckpt') if file is None else '`--student`'
        source = str(Path(config.get(*path, 'dst_ckpt') if file is None else file).expanduser())
        wanted = f'{place} to hold trained weights of `{key}`'
        if not Path(source).exists():
            raise TRGError(
                f'expected {wanted}, got {source}, which does not exist; train first, or name the weights with '
                '`--student`'
            )
        trained = copy.deepcopy(student)
        load_weights(trained, read_checkpoint(source, wanted), source, wanted)
        models.append(Model(label, key, trained))
    for model in models:
        model.module.to(device).eval()
    return models


def _name(config: Config, path: tuple[str, ...]) -> str:
    names = [config.get(*path, 'kwargs', name) for name in ('model_name', 'model_type')]
    return str(next(filter(None, names), config.get(*path, 'key')))


@torch.no_grad()
def hooked_features(model: Model, ends: Sequence[tuple[str, str]], images: Tensor) -> IoDict:
    """Returns what the host's hooks would keep of one batch: {module path: {'input' | 'output': value}}.

    Args:
        model: A model. Nothing is wrapped around it: ``student_model.layer4`` is its ``layer4``.
        ends: Module paths, with ``input`` or ``output``.
        images: Batch [B, C, H, W].

    Raises:
        TRGError: If there is no such module, or the model refuses the images.
    """
    found: dict[str, dict[str, Any]] = {path: {} for path, _ in ends}
    with contextlib.ExitStack() as hooks:
        for path, end in ends:
            hooks.enter_context(_hook(model, path, end, found[path]))
        with explained(f'a batch of the images through `{model.key}` failed'):
            model.module(images.to(next(model.module.parameters()).device))
    return found


def _hook(model: Model, path: str, end: str, kept: dict[str, Any]) -> Any:
    inner = next((path[len(prefix) :] for prefix in PREFIXES if path.startswith(prefix)), path)
    module = model.module if path == '.' else get_module(model.module, inner)
    if not isinstance(module, nn.Module):
        side, known = 'teacher' if model.is_teacher else 'student', dict(model.module.named_modules())
        raise TRGError(
            f'expected the module path {path!r} of a loss to name a module of `{model.key}`, without what the training '
            f'puts around it, got none{nearest(inner, list(known))}; name a layer with `--{side}-layer`'
        )

    def keep(module: nn.Module, value: Any, result: Any) -> None:
        kept[end] = result if end == 'output' else value

    return module.register_forward_hook(keep)


@torch.no_grad()
def penultimate_features(model: Model, images: Tensor) -> Tensor:
    """Returns what enters the last linear layer of a model, averaged over space: [B, D], on the CPU.

    A model without linear layers (a fully convolutional one) gives what enters its last convolution.

    Raises:
        TRGError: If the model has neither, or refuses the images.
    """
    kinds = [kind for kind in CLASSIFIERS if any(isinstance(module, kind) for module in model.module.modules())]
    if not kinds:
        raise TRGError(
            f'expected `{model.key}` to have a linear layer or a convolution, got none; leave the picture out with '
            '`--only`'
        )
    device, found, inputs = next(model.module.parameters()).device, [], [torch.empty(0)]

    def keep(module: nn.Module, value: Any) -> None:
        if isinstance(module, kinds[0]) and (tensor := first_tensor(value)) is not None:
            inputs[0] = tensor

    with register_module_forward_pre_hook(keep), explained(f'the images through `{model.key}` failed'):
        for batch in torch.split(images, BATCH_SIZE):
            model.module(batch.to(device))
            feature = inputs[0].float().cpu()
            if kinds[0] is nn.Conv2d:
                feature = feature.movedim(1, -1)
            found.append(feature.reshape(len(batch), -1, feature.shape[-1]).mean(1))
    return torch.cat(found)
