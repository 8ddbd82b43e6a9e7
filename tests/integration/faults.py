"""Processes that die or cannot write: run as `python faults.py JSON`, one training for each entry of a JSON list.

An entry is {config, words, moment, at, number}. The training is killed when the file `at` is written for the
`number`-th time (moments `half`, `before` and `after`) or in that step (moment `step`); or no file may grow
past `number` bytes (`full`), or the folder `at` is read-only (`read-only`). Each training is a fork, before any
computation, so that torch is imported once for all.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import torch

from trg_torchdistill.cli.main import main

HERE = Path(__file__).parent


def run(entries):
    """Runs the trainings in a process of their own; returns (how each ended, what it said on standard error)."""
    package = HERE.parents[1]
    environment = {**os.environ, 'PYTHONPATH': f'{HERE}{os.pathsep}{package}', 'OMP_NUM_THREADS': '1'}
    words = [sys.executable, __file__, json.dumps(entries)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


def _train(entry):
    moments = {'step': _die_in_step, 'full': _fill_disk, 'read-only': _take_rights}
    prepare = moments.get(entry['moment'], _die_at_replacing)
    prepare(entry['at'], entry['number'], entry['moment'])
    return main(['train', entry['config'], *entry['words']])


def _fill_disk(name, size, moment):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _take_rights(name, number, moment):
    """Makes a folder read-only, also for root, who loses the capability to ignore that."""
    os.chmod(name, 0o555)
    version_3, this_process = 0x20080522, 0
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)())


def _die_in_step(name, number, moment):
    step, seen = torch.optim.SGD.step, []

    def step_or_die(*args, **kwargs):
        seen.append(1)
        if len(seen) == number:
            _die()
        return step(*args, **kwargs)

    torch.optim.SGD.step = step_or_die


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_replacing(name, number, moment):
    """Dies when the new file is half there, is there under its temporary name, or has just got its name."""
    replace, seen = os.replace, []

    def replace_or_die(source, target):
        seen.append(os.path.basename(target))
        is_time = seen[-1] == name and seen.count(name) == number
        if is_time and moment == 'half':
            os.truncate(source, os.path.getsize(source) // 2)
        if is_time and moment != 'after':
            _die()
        replace(source, target)
        if is_time:
            _die()

    os.replace = replace_or_die


def _forked(entry):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(_train(entry))
    os.close(writing)
    with open(reading) as stream:
        said = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


if __name__ == '__main__':
    print(json.dumps([_forked(entry) for entry in json.loads(sys.argv[1])]))
