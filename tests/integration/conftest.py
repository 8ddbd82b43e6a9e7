"""The accuracy grid as a module, and images for it."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
