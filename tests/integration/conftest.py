"""The accuracy grid as a module, images for it, and its stages without a process for each training."""

import contextlib
import importlib
import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from trg_torchdistill.cli.main import main

FOLDER = Path(__file__).parents[2] / 'benchmarks'
CLASSES = [f'class{index}' for index in range(10)]


@pytest.fixture(scope='module')
def grid():
    paths = [str(FOLDER), str(FOLDER / 'accuracy')]
    before = set(sys.modules)
    sys.path[:0] = paths
    yield importlib.import_module('grid')
    for path in paths:
        sys.path.remove(path)
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], '__file__', None)):
            del sys.modules[name]


@pytest.fixture(scope='module')
def data(grid, tmp_path_factory):
    """8 training, 2 validation and 2 test images a class."""
    prepare = importlib.import_module('prepare')
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('data') / 'out'
    generator = np.random.default_rng(0)
    for split, count in (('train', 10), ('test', 2)):
        for name in CLASSES:
            (source / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(source / split / name / f'{index:04d}.png')
    assert prepare.split_tree(source, out, 2) == {'train': 80, 'val': 20, 'test': 20}
    with pytest.raises(ValueError, match='expected more than 10 training images'):
        prepare.split_tree(source, out / 'other', 10)
    return out


def in_turn(workers):
    """An executor that does a job where it is submitted: `train` handles signals, as the main thread alone may."""

    def submit(job, *args):
        future = Future()
        future.set_result(job(*args))
        return future

    return contextlib.nullcontext(SimpleNamespace(submit=submit))


@pytest.fixture
def run_stage(grid, data, tmp_path, monkeypatch):
    """Runs a stage of the grid; returns the exit code and all notes.

    The first training is a process of its own, as all are outside the tests; the others take its place in this one.
    """
    trained = []

    def run(command, **options):
        if command[0] == sys.executable:
            trained.append(command)
        if command[0] != sys.executable or len(trained) == 1:
            return subprocess.run(command, **options)
        with contextlib.redirect_stdout(options['stdout']), contextlib.redirect_stderr(options['stdout']):
            return SimpleNamespace(returncode=main(command[3:]))

    def stage(name, methods, *words):
        lines = tmp_path / 'lines.jsonl'
        words = [name, '--data', str(data), '--out', str(tmp_path), '--lines', str(lines), *words]
        words += ['--settings', 'longtailed', '--methods', *methods, '--seeds', '0']
        monkeypatch.setattr(sys, 'argv', ['grid.py', *words])
        with pytest.raises(SystemExit) as ended:
            grid.main()
        return ended.value.code, [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []

    monkeypatch.setattr(grid, 'subprocess', SimpleNamespace(run=run, STDOUT=subprocess.STDOUT))
    monkeypatch.setattr(grid, 'ThreadPoolExecutor', in_turn)
    monkeypatch.setitem(grid.SETTINGS, 'longtailed', {'imbalance': 4})
    return stage
