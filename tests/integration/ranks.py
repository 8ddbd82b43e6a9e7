"""Starts `train` under torchrun on CPUs; a YAML names this module to see what each process has, and to disturb it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from tiny import Blobs
from torch import distributed as dist
from torchdistill.core.interfaces.registry import register_post_epoch_proc_func

from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.procs import post_epoch_process_with_trg

TESTS = Path(__file__).parent
DDP = "wrapper: 'DistributedDataParallel'"


def environment():
    paths = [*os.environ.get('PYTHONPATH', '').split(os.pathsep), str(TESTS.parents[1]), str(TESTS)]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}


def start(*words, processes=2):
    """Starts torchrun, with its own port."""
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
    command = [sys.executable, *launcher, '-m', 'trg_torchdistill', 'train', *words, '--device', 'cpu']
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def end_of(launched):
    """Waits for the end; returns the exit code, the output and the errors, torchrun's report among them."""
    with launched:
        out, err = launched.communicate(timeout=120)
    return launched.returncode, out, err


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
