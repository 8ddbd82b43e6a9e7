"""Where and how a run takes place: the device, the processes and the precision."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from trg_torchdistill.cli.runtime.precision import FLOAT32, Precision
from trg_torchdistill.cli.runtime.processes import ALONE, Processes
from trg_torchdistill.errors import TRGError, explained


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
