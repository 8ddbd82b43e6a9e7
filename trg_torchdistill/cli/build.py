"""Builds what a run needs from a checked YAML: the device, both models and the host's box."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
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
from trg_torchdistill.cli.weights import CONVERSION, MISFITS, load_model, read_checkpoint, short
from trg_torchdistill.errors import TRGError, explained, placed
from trg_torchdistill.files import shown_path


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
    """Builds the model described at ``path`` on the CPU and loads its ``src_ckpt`` if that exists.

    Raises:
        TRGError: If the model refuses its arguments or the weights do not fit.
    """
    model_config = config.mapping(*path)
    with placed(f'`{model_config["key"]}` refused its arguments', f'change {config.where(*path, "kwargs")}'):
        model: nn.Module | None = get_image_classification_model(model_config, distributed)
        if model is None:
            model = get_model(model_config['key'], model_config.get('repo_or_dir'), **model_config['kwargs'])
    load_weights(config, path, model)
    return model


def load_weights(config: Config, path: tuple[str, ...], model: nn.Module) -> None:
    """Loads a model's ``src_ckpt`` if that exists, as the host does, but runs no code from it.

    Raises:
        TRGError: If the file cannot be read in this way or the weights do not fit.
    """
    source = source_of(config, path)
    wanted = f'{config.where(*path, "src_ckpt")} to hold weights of `{config.get(*path, "key")}`'
    checkpoint = read_checkpoint(source, wanted)
    if checkpoint is not None:
        load_model(model, checkpoint, source, wanted)


def source_of(config: Config, path: tuple[str, ...]) -> str | None:
    """Returns the ``src_ckpt`` of the model described at ``path``, None where there is none.

    Raises:
        TRGError: If it is no text.
    """
    source = config.get(*path, 'src_ckpt')
    if source is not None and not isinstance(source, str):
        raise TRGError(f'expected {config.where(*path, "src_ckpt")} to be a path or an address, got {source!r}')
    return source


def refuse_code_in_stages(config: Config) -> None:
    """Reads the ``src_ckpt`` of each stage's models, which the host will load with pickle, and so run any code in it.

    Raises:
        TRGError: If a file holds more than tensors and plain values, or is damaged.
    """
    for stage in config.stage_paths():
        for side in config.side_names:
            path = (*stage, side)
            read_checkpoint(source_of(config, path), f'{config.where(*path, "src_ckpt")} to hold weights')


def has_trained_weights(config: Config, path: tuple[str, ...]) -> bool:
    """Whether a model starts from stored weights: its ``src_ckpt``, ``pretrained: True`` or a ``weights:``."""
    kwargs, source = config.mapping(*path, 'kwargs'), source_of(config, path)
    is_there = source is not None and (source.startswith(('https://', 'http://')) or Path(source).exists())
    return is_there or bool(kwargs.get('pretrained')) or kwargs.get('weights') is not None


def check_teacher_weights(config: Config, path: tuple[str, ...]) -> None:
    """Refuses a teacher with random weights because the file of its trained ones is missing.

    A teacher without any ``src_ckpt`` is let through: a model may bring its weights in other ways.

    Raises:
        TRGError: If its ``src_ckpt`` does not exist and nothing else gives it weights.
    """
    source = config.get(*path, 'src_ckpt')
    if source is not None and not has_trained_weights(config, path):
        raise TRGError(
            f'expected {config.where(*path, "src_ckpt")} to be the trained weights of the teacher, got '
            f'{shown_path(source)}, which does not exist; train the teacher first, correct the path, or set '
            f'`pretrained: True` or `weights:` under {config.where(*path, "kwargs")}'
        )


def build_box(config: Config, teacher: nn.Module | None, student: nn.Module, placement: Placement) -> Any:
    """Builds the host's distillation box, or its training box when there is no teacher.

    Raises:
        TRGError: If the host cannot build it of this YAML, or a stage names weights that could run code.
    """
    refuse_code_in_stages(config)
    common = (config.mapping('datasets'), config.mapping('train'), placement.device, placement.device_ids)
    rest = (placement.distributed, placement.lr_factor)
    with explained(
        f'torchdistill could not build {config.where("train")}', 'compare its blocks with a sample configuration'
    ):
        if teacher is None:
            return get_training_box(student, *common, *rest)
        return get_distillation_box(teacher, student, *common, *rest)


def load_optimizer(box: Any, source: str | None) -> float:
    """Restores the optimizer and the scheduler from a trainer's checkpoint, as the example trainer does.

    Args:
        box: Distillation or training box.
        source: The student's ``src_ckpt``. A missing file and one of bare weights change nothing.

    Returns:
        The best validation accuracy that the checkpoint knows, else 0.

    Raises:
        TRGError: If the optimizer's state does not fit the parameters that are trained now.
    """
    is_file = source is not None and Path(source).exists()  # an address gives its weights alone
    checkpoint = read_checkpoint(source, "the student's `src_ckpt` to hold a checkpoint") if is_file else None
    if checkpoint is None or 'optimizer' not in checkpoint:
        return 0.0
    try:
        box.optimizer.load_state_dict(checkpoint['optimizer'])
        if box.lr_scheduler is not None and checkpoint.get('lr_scheduler') is not None:
            box.lr_scheduler.load_state_dict(checkpoint['lr_scheduler'])
        return float(checkpoint.get('best_value') or 0.0)
    except MISFITS as error:
        raise TRGError(
            f"expected the optimizer's state in the student's `src_ckpt` to fit, got {source}: {short(error)}; "
            f'to start from its weights alone, name a file that holds nothing else: {CONVERSION}'
        ) from error
