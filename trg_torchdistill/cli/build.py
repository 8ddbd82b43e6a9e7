"""Builds what a run needs from a checked YAML: the device, both models and the host's box."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchdistill.models.official import get_image_classification_model
from torchdistill.models.registry import get_model

from trg_torchdistill.cli.config import Config
from trg_torchdistill.cli.precision import FLOAT32, Precision
from trg_torchdistill.cli.processes import ALONE, Processes
from trg_torchdistill.cli.weights import check_stage_files, load_start, require_file
from trg_torchdistill.errors import TRGError, explained, placed


@dataclass(frozen=True)
class Placement:
    """Where and how a run takes place, in the terms of the host.

    Attributes:
        device: Device of the models and batches.
        device_ids: Indices of this process's devices, None for all.
        distributed: Whether several processes train together.
        lr_factor: What every learning rate is multiplied with.
        processes: This process among those that train together.
        precision: Precision of the forward passes.
    """

    device: torch.device
    device_ids: list[int] | None = None
    distributed: bool = False
    lr_factor: int = 1
    processes: Processes = ALONE
    precision: Precision = FLOAT32


def choose_placement(name: str, processes: Processes | None = None, adjust_lr: bool = False) -> Placement:
    """Returns the placement for ``--device``; ``auto`` is the GPU where there is one, else the CPU.

    Args:
        name: The word after ``--device``.
        processes: Those of the training, which get a GPU each; None where only one process makes sense.
        adjust_lr: Whether learning rates are multiplied with the number of processes.

    Raises:
        TRGError: If there is no such device, or ``torchrun`` started several processes of a command for one.
    """
    if processes is None and int(os.environ.get('WORLD_SIZE', '1')) > 1:
        raise TRGError(
            f'expected one process, got WORLD_SIZE={os.environ["WORLD_SIZE"]}; start this command without torchrun, '
            'which is for `trg-torchdistill train` and `eval`'
        )
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if processes is not None and processes.are_several:
        return _placement_of_one_of_several(name, processes, adjust_lr)
    with explained(f'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got {name}'):
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` is a device, too, and holds no number
    return Placement(device)


def _placement_of_one_of_several(name: str, processes: Processes, adjust_lr: bool) -> Placement:
    lr_factor = processes.size if adjust_lr else 1
    if name == 'cpu':
        return Placement(torch.device('cpu'), None, True, lr_factor, processes)
    if name != 'cuda':
        raise TRGError(
            f'expected `--device` to be auto, cuda or cpu for several processes, each of which takes its own GPU, got '
            f'{name}; choose the GPUs with CUDA_VISIBLE_DEVICES'
        )
    if processes.local_size > torch.cuda.device_count():
        raise TRGError(
            f'expected a GPU for each of the {processes.local_size} processes of this node, got '
            f'{torch.cuda.device_count()}; lower `--nproc_per_node` of torchrun, or use `--device cpu`'
        )
    torch.cuda.set_device(processes.local_rank)
    device = torch.device('cuda', processes.local_rank)
    return Placement(device, [processes.local_rank], True, lr_factor, processes)


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


def build_box(config: Config, teacher: nn.Module | None, student: nn.Module, placement: Placement) -> Any:
    """Builds the host's distillation box, or its training box when there is no teacher.

    Raises:
        TRGError: If the host cannot build it of this YAML, or a stage names weights that could run code.
    """
    check_stage_files(config)
    common = (config.mapping('datasets'), config.mapping('train'), placement.device, placement.device_ids)
    rest = (placement.distributed, placement.lr_factor)
    with explained(
        f'torchdistill could not build {config.where("train")}', 'compare its blocks with a sample configuration'
    ):
        if teacher is None:
            return get_training_box(student, *common, *rest)
        return get_distillation_box(teacher, student, *common, *rest)
