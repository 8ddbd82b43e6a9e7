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
        processes: This process among those that train together.
        lr_factor: What every learning rate is multiplied with.
        precision: Precision of the forward passes.
    """

    device: torch.device
    processes: Processes = ALONE
    lr_factor: int = 1
    precision: Precision = FLOAT32

    @property
    def distributed(self) -> bool:
        """Whether several processes train together."""
        return self.processes.are_several

    @property
    def device_ids(self) -> list[int] | None:
        """Index of this process's own GPU, None for all."""
        return [self.processes.local_rank] if self.distributed and self.device.type == 'cuda' else None


def choose_placement(name: str, processes: Processes | None = None, adjust_lr: bool = False) -> Placement:
    """Returns the placement for ``--device``; ``auto`` is the GPU where there is one, else the CPU.

    Each of several ``processes`` gets a GPU; without any, only one process makes sense.

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
        return Placement(_device_of_one_of_several(name, processes), processes, processes.size if adjust_lr else 1)
    with explained(f'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got {name}'):
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` is a device, too, and holds no number
    return Placement(device)


def _device_of_one_of_several(name: str, processes: Processes) -> torch.device:
    if name == 'cpu':
        return torch.device('cpu')
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
    return torch.device('cuda', processes.local_rank)
