"""The processes of one training under torchrun: who they are, what they tell each other, and how they end together."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from trg_torchdistill.cli.runtime.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from trg_torchdistill.errors import RunError, TRGError

TIMEOUT = timedelta(minutes=30)  # the longest wait is for the first process of a node to download a data set
SECONDS_FOR_THE_FIRST = 2.0
LOST = ('connection', 'gloo', 'nccl', 'timed out', 'socket')


@dataclass(frozen=True)
class Processes:
    """This process among those of the training. All of them must call the methods, in the same order.

    Attributes:
        rank: Number of this process, from 0. The first one alone prints and writes files.
        local_rank: Its number on its node.
        size: Number of processes.
        local_size: Number of processes on its node.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1

    def gathered(self, value: Any) -> list[Any]:
        """Returns the value of each process, by rank, to all of them."""
        values = [value] * self.size
        if self.are_several:
            dist.all_gather_object(values, value)
        return values

    def gathered_on_first(self, value: Any) -> list[Any]:
        """Returns the value of each process, by rank, to the first one, and nothing of use to the others."""
        values = [value] * self.size
        if self.are_several:
            dist.gather_object(value, values if self.is_first else None)
        return values

    def from_first(self, value: Any) -> Any:
        """Returns the value of the first process; that of the others is ignored."""
        values = [value]
        if self.are_several:
            dist.broadcast_object_list(values)
        return values[0]

    def total(self, values: Tensor) -> list[float]:
        """Returns the sum over the processes, element by element."""
        if self.are_several:
            dist.all_reduce(values)
        result: list[float] = values.tolist()
        return result

    def copy_from_first(self, modules: Iterable[nn.Module], only_buffers: bool = False) -> None:
        """Overwrites parameters and buffers of the modules with those of the first process."""
        if not self.are_several:
            return
        kinds = (nn.Module.buffers,) if only_buffers else (nn.Module.parameters, nn.Module.buffers)
        for tensor in dict.fromkeys(tensor for module in modules for kind in kinds for tensor in kind(module)):
            values = tensor.detach().contiguous()
            dist.broadcast(values, 0)
            tensor.detach().copy_(values)

    @contextlib.contextmanager
    def first_of_node_first(self) -> Iterator[None]:
        """Runs the block in the first process of each node before the others, so that it alone downloads what it names.

        When it fails there the others wait in vain, and torchrun ends them.
        """
        if self.are_several and self.local_rank != 0:
            dist.barrier()
        yield
        if self.are_several and self.local_rank == 0:
            dist.barrier()


ALONE = Processes()


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started; without torchrun, and with a single process, there is nothing to join.

    On GPUs tensors go through nccl and everything else through gloo, on CPUs all goes through gloo. An error in any of
    the processes is reported by one of them: by the first if it fails too, as all do over a mistake in the YAML.

    Raises:
        TRGError: If the environment is not torchrun's.
        RunError: If another process ended without a word.
        SystemExit: With the exit code, if another process reports the error.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) < 2:
        yield ALONE
        return
    try:
        store, rank, size = next(rendezvous('env://', timeout=TIMEOUT))
        local_rank, local_size = int(os.environ['LOCAL_RANK']), int(os.environ['LOCAL_WORLD_SIZE'])
    except (ValueError, KeyError) as error:
        raise TRGError(
            f'expected torchrun to start several processes, got WORLD_SIZE={os.environ["WORLD_SIZE"]} without the '
            f'variables that it sets ({error}); start with `torchrun --nproc_per_node N -m trg_torchdistill train ...`'
        ) from error
    processes = Processes(rank, local_rank, size, local_size)
    try:
        on_gpus = device != 'cpu' and torch.cuda.is_available()
        backend = 'cpu:gloo,cuda:nccl' if on_gpus else 'gloo'
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield processes
    except (Exception, KeyboardInterrupt) as error:
        _end_with_one_message(error, store, processes)
        raise
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


class StopSignals:
    """Takes Ctrl-C and SIGTERM of several processes, so that they can agree on the step at which all stop.

    A process that left at once would leave the others waiting for it. As a context manager it sets the handlers.
    SIGTERM is also what torchrun sends to the others when one has failed.

    Args:
        processes: A single process keeps its handlers.

    Attributes:
        received: Whether either signal came.
        interrupted: Whether Ctrl-C came.
    """

    def __init__(self, processes: Processes) -> None:
        self.received = self.interrupted = False
        self._signals = (signal.SIGINT, signal.SIGTERM) if processes.are_several else ()
        self._before: list[Any] = []

    def __enter__(self) -> StopSignals:
        self._before = [signal.signal(number, self._receive) for number in self._signals]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # torchrun ends those that are left when one has failed, and sends the signal of a terminal once more: neither
        # must meet the farewell
        if self.received or kind is not None:
            return
        for number, handler in zip(self._signals, self._before, strict=True):
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self.interrupted |= number == signal.SIGINT


def _end_with_one_message(error: BaseException, store: Any, processes: Processes) -> None:
    """Returns in the process that is to report its error, and ends all others."""
    if not _reports(store, processes):
        code = EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED
        sys.exit(error.exit_code if isinstance(error, TRGError) else code)
    if not processes.is_first:
        print(f'process {processes.rank} of {processes.size} failed:', file=sys.stderr, flush=True)
    cause = error.__cause__ if isinstance(error, TRGError) else error
    if isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in LOST):
        raise RunError(
            f'process {processes.rank} of {processes.size} lost the others ({str(cause).splitlines()[0][:200]}); one '
            'of them was killed, ran out of memory, or cannot be reached'
        ) from error


def _reports(store: Any, processes: Processes) -> bool:
    """Whether this is the process that reports: the first one for a while, then any."""
    try:
        store.set(f'failed {processes.rank}', '')
        deadline = time.monotonic() + (0.0 if processes.is_first else SECONDS_FOR_THE_FIRST)
        while time.monotonic() < deadline:
            if store.check(['failed 0']):
                return False
            time.sleep(0.05)
        reports: bool = store.add('reports', 1) == 1
    except RuntimeError:  # the store has gone with its process
        return True
    return reports
