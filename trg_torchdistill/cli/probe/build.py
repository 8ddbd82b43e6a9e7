"""Builds what a run needs from a checked YAML: the device, both models and the host's box."""

from __future__ import annotations

from torch import nn
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchdistill.models.official import get_image_classification_model
from torchdistill.models.registry import get_model

from trg_torchdistill.cli.probe.weights import check_stage_files, load_start, require_file
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.errors import explained, placed
from trg_torchdistill.host import Box


def build_model(config: Config, path: tuple[str, ...], distributed: bool = False) -> nn.Module:
    """Builds the model described at ``path`` on the CPU, without its ``src_ckpt``.

    Raises:
        TRGError: If the model refuses its arguments.
    """
    model_config = config.mapping(*path)
    with placed(f'`{model_config["key"]}` refused its arguments', f'change {config.where(*path, "kwargs")}'):
        model: nn.Module | None = get_image_classification_model(model_config, distributed)
        if model is None:
            model = get_model(model_config['key'], model_config.get('repo_or_dir'), **model_config['kwargs'])
    return model


def build_with_weights(config: Config, path: tuple[str, ...], distributed: bool = False) -> tuple[nn.Module, str]:
    """Builds the model described at ``path`` with the weights from which it starts; returns where they are from too.

    Raises:
        TRGError: If the model refuses its arguments, or the file of its weights is missing or does not fit.
    """
    require_file(config, path)
    model = build_model(config, path, distributed)
    return model, load_start(config, path, model)


def build_box(config: Config, teacher: nn.Module | None, student: nn.Module, placement: Placement) -> Box:
    """Builds the host's distillation box, or its training box when there is no teacher.

    Raises:
        TRGError: If the host is unknown, cannot build it of this YAML, or a stage names weights that could run code.
    """
    check_stage_files(config)
    common = (config.mapping('datasets'), config.mapping('train'), placement.device, placement.device_ids)
    rest = (placement.distributed, placement.lr_factor)
    with explained(
        f'torchdistill could not build {config.where("train")}', 'compare its blocks with a sample configuration'
    ):
        if teacher is None:
            return Box(get_training_box(student, *common, *rest))
        return Box(get_distillation_box(teacher, student, *common, *rest))
