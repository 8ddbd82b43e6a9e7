import random
import shlex

import numpy as np
import pytest
import torch

from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.random_state import preserved_random_state, random_state, set_random_state
from trg_torchdistill.cli.train.resume import resume_command
from trg_torchdistill.errors import RunError
from trg_torchdistill.files import read_saved, save


def draw():
    numpy = [float(np.random.rand()), float(np.random.randn())]
    return [random.random(), random.gauss(0, 1), *numpy, torch.rand(1).item()]


def test_random_states_go_through_a_file_and_a_block_leaves_no_trace(tmp_path):
    draw()
    save(random_state(), tmp_path / 'state.pt')
    expected = draw()
    set_random_state(read_saved(tmp_path / 'state.pt'))
    with preserved_random_state():
        draw()
    assert draw() == expected


@pytest.mark.parametrize(('error', 'told'), [(OSError, RunError), (KeyboardInterrupt, KeyboardInterrupt)])
def test_a_failed_write_keeps_the_older_file(error, told, tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'file.pt'
    save({'a': 1}, path)

    def fail(state, file):
        file.write(b'half a file')
        raise error

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(told):
        save({'a': 2}, path)
    assert read_saved(path) == {'a': 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('c.yaml --resume', 'c.yaml --resume'),
        ('--overwrite c.yaml --seed=3', 'c.yaml --seed=3 --resume'),
        ('--start_epoch 2 c.yaml --traceback', 'c.yaml --traceback --resume'),
        ('c.yaml --start=2 --over -adjust_lr --amp bf16', 'c.yaml -adjust_lr --amp bf16 --resume'),
        ('c.yaml --seed -1 -student_only', 'c.yaml --seed -1 -student_only --resume'),
        ("'my c.yaml' --run_dir 'a b'", "'my c.yaml' --run_dir 'a b' --resume"),
    ],
)
def test_a_run_goes_on_with_the_words_that_began_it(words, expected):
    assert resume_command(['train', *shlex.split(words)], Processes()) == f'trg-torchdistill train {expected}'


@pytest.mark.parametrize(
    ('size', 'local_size', 'launcher'),
    [(2, 2, ''), (8, 4, '--nnodes 2 --rdzv_backend c10d --rdzv_endpoint HOST:PORT ')],
)
def test_several_processes_go_on_as_many(size, local_size, launcher):
    processes = Processes(rank=0, size=size, local_rank=0, local_size=local_size)
    expected = f'torchrun --nproc_per_node {local_size} {launcher}-m trg_torchdistill train c.yaml --resume'
    assert resume_command(['train', 'c.yaml', '--overwrite'], processes) == expected
