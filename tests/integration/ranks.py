"""Commands in several processes on CPUs; a YAML names this module to see what each process has, and to disturb it."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import torch
from tiny import Blobs
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torchdistill.core.interfaces.registry import register_post_epoch_proc_func

from trg_torchdistill.cli.main import main
from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.procs import post_epoch_process_with_trg

TESTS = Path(__file__).parent
DDP = "wrapper: 'DistributedDataParallel'"
# Importing torch takes longer than all that a launch does: its processes are forked from one that has done it.
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['torch.distributed.run', 'torchvision', 'torchdistill.core.distillation'])


def environment():
    paths = [*os.environ.get('PYTHONPATH', '').split(os.pathsep), str(TESTS.parents[1]), str(TESTS)]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}


class Launch:
    """A command in several processes, by the launcher of torchrun or by torchrun itself, or in one without it."""

    def __init__(self, command, config, *words, processes=2, by_torchrun=False):
        folder = Path(config).parent
        self.streams = [folder.with_name(f'{folder.name}.{name}') for name in ('out', 'err')]
        words = [command, config, *words, '--device', 'cpu']
        self.process = FORKS.Process(target=_launch, args=(words, processes, by_torchrun, self.streams))
        self.process.start()

    def interrupted_after_an_epoch(self, number):
        """Sends a signal when an epoch is over; returns what :meth:`end` does."""
        while '\nepoch ' not in self.output()[0] and self.process.is_alive():
            time.sleep(0.05)
        os.kill(self.process.pid, number)
        return self.end()

    def output(self):
        """What it has written to stdout and stderr, torchrun's report among it."""
        return [stream.read_text() if stream.exists() else '' for stream in self.streams]

    def end(self):
        """Waits for the end; returns the exit code, the output and the errors."""
        self.process.join(120)
        self.process.kill()
        return self.process.exitcode, *self.output()


def _launch(words, processes, by_torchrun, streams):
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
    if by_torchrun:
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
        os.execve(sys.executable, [sys.executable, *launcher, '-m', 'trg_torchdistill', *words], environment())
    if processes == 1:
        _run(words)
    config = LaunchConfig(
        1, 1, processes, run_id=uuid.uuid4().hex, rdzv_backend='c10d', rdzv_endpoint='localhost:0', max_restarts=0,
        start_method='fork', logs_specs=DefaultLogsSpecs(),
    )  # fmt: skip
    try:
        elastic_launch(config, _run)(words)
    except ChildFailedError as error:
        sys.exit(str(error))


def _run(words):
    # as torchrun's processes have them, which are not forked from a launcher that handles them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(words))


def digest(tensors):
    """One word for the exact values of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@register_post_epoch_proc_func
def dump_each_process(self, metrics=None, **kwargs):
    """The usual process, and a line about this process in `ranks/RANK.jsonl` beside the data set's folder."""
    modules = Box(self).modules()
    sampler = self.train_data_loader.batch_sampler.sampler
    line = {
        'weights': digest(value for module in modules.values() for value in module.parameters()),
        'buffers': digest(value for module in modules.values() for value in module.buffers()),
        'means': modules['student'].layer1[1].running_mean.tolist(),
        'momentum': digest(state['momentum_buffer'] for state in self.optimizer.state.values()),
        'images': list(sampler),
        'trg': {name: loss.epoch_means() for name, loss in relation_losses(self.criterion).items()},
        'draw': torch.rand(1, generator=torch.Generator().set_state(torch.get_rng_state())).item(),
    }
    folder = self.dataset_dict['train'].folder
    folder.mkdir(exist_ok=True)
    with (folder / f'{dist.get_rank()}.jsonl').open('a') as file:
        file.write(json.dumps(line) + '\n')
    post_epoch_process_with_trg(self, metrics=metrics, **kwargs)


class Watched(Blobs):
    """Training images; one process does something at its n-th image."""

    def __init__(self, size, folder, rank=None, image=None, does=None):
        super().__init__(size)
        self.folder = Path(folder) / 'ranks'
        self.rank, self.images_left, self.does = rank, image, does

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        if dist.is_initialized() and dist.get_rank() == self.rank:
            self.images_left -= 1
            if self.images_left == -1:
                return self.disturb(image), label
        return image, label

    def disturb(self, image):
        if self.does == 'fail':
            raise OSError('the image is unreadable')
        if self.does == 'end':
            os._exit(9)
        if self.does == 'interrupt':
            os.kill(os.getpid(), signal.SIGINT)
        return image * float('nan') if self.does == 'nan' else image
