"""Every test starts from the same seeds, on one thread, and leaves the host's classes as it found them."""

import os
import random

import pytest
import torch
from hypothesis import settings
from torchdistill.core.distillation import DistillationBox, MultiStagesDistillationBox
from torchdistill.core.training import MultiStagesTrainingBox, TrainingBox

HOST_CLASSES = (DistillationBox, MultiStagesDistillationBox, TrainingBox, MultiStagesTrainingBox)

torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # also in the processes that a test starts

settings.register_profile('fixed', derandomize=True, deadline=None, max_examples=200)
settings.register_profile('many', deadline=None, max_examples=5_000)
settings.load_profile('fixed')


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu') is not None:
            item.add_marker(pytest.mark.skip(reason='no CUDA device on this machine'))


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _host_classes_restored():
    """The host attaches the processes of the last box built to the class; undo that after each test."""
    before = [dict(vars(host_class)) for host_class in HOST_CLASSES]
    yield
    for host_class, attributes in zip(HOST_CLASSES, before, strict=True):
        for name, value in list(vars(host_class).items()):
            if name not in attributes:
                delattr(host_class, name)
            elif attributes[name] is not value:
                setattr(host_class, name, attributes[name])


@pytest.fixture
def generator():
    """A seeded generator, apart from torch's global one."""
    return torch.Generator().manual_seed(20230612)
