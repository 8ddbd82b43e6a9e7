"""The short form of `benchmarks/soak.py`: over 150 steps of the full method nothing is left behind."""

import math
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MEGABYTES = 2**20


@pytest.fixture(scope='module', params=[0, 200], ids=['no queue', 'queue'])
def soaked(request):
    """Notes after the warm-up, and all losses."""
    folder = str(Path(__file__).parents[2] / 'benchmarks')
    sys.path.insert(0, folder)
    try:
        from soak import soak
    finally:
        sys.path.remove(folder)
    notes, losses = soak(150, 10, request.param)
    return [note for note in notes if note['step'] >= 50], losses


def test_every_loss_is_finite(soaked):
    _, losses = soaked
    assert len(losses) == 150
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize('name', ['tensors', 'hooks', 'io_tensors', 'io_paths'])
def test_counts_do_not_grow(name, soaked):
    notes, _ = soaked
    assert len(notes) == 11
    assert notes[0][name] > 0
    assert notes[-1][name] <= notes[0][name]


def test_objects_do_not_grow_with_the_steps(soaked):
    """Nothing is left of 100 steps; a few objects are the process's own, such as caches of modules used before."""
    notes, _ = soaked
    assert notes[-1]['step'] - notes[0]['step'] == 100
    assert notes[-1]['objects'] - notes[0]['objects'] < 10


def test_memory_does_not_run_away(soaked):
    notes, _ = soaked
    assert notes[-1]['resident_bytes'] - notes[0]['resident_bytes'] < 100 * MEGABYTES
