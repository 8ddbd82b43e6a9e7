"""Seeds, saves and restores every random generator that a training draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torchdistill.common.main_util import set_seed

from trg_torchdistill.cli.runtime.processes import Processes


def seed_equally(seed: int | None, processes: Processes) -> None:
    """Seeds all processes alike, so that they build equal models and data sets; several without a seed at random."""
    is_drawn = seed is None and processes.are_several
    set_seed(processes.from_first(random.randrange(2**31)) if is_drawn else seed)


def random_state() -> dict[str, Any]:
    """Returns the states of python's, numpy's and torch's generators as tensors and plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        'python': [version, list(words), gauss],
        'numpy': [
            str(kind),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Sets all generators to a state of :func:`random_state`; GPUs that are not there any more are left out."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'])
    if torch.cuda.is_available():
        for index, device_state in enumerate(state['cuda'][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, index)


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leaves every generator as it was before the block."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
