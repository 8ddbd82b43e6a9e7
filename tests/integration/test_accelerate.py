"""Hugging Face accelerate through the `accelerator` argument of torchdistill's box, as docs/accelerate.md says it.

What a user must do beside the YAML is in :func:`train`: `use_fp16`.
"""

import importlib
import os
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from helpers import run_processes
from host import KD, TinyCnn, box_from, full_method, train_yaml, trg_term

from trg_torchdistill.wrappers import Student4TRG

pytestmark = pytest.mark.slow

FULL = full_method(trg_term('student_model.layer4', name='contextual', key='TokenContextualLoss') + KD)


@pytest.fixture(autouse=True)
def _no_accelerator_left():
    """Accelerate keeps its state in its classes."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def build(folder, accelerator, text=FULL, width=8):
    torch.manual_seed(0)
    return box_from(folder, text, TinyCnn(12), TinyCnn(width), num_images=16, accelerator=accelerator)


def train(folder, accelerator, text=FULL, width=8):
    """Two epochs; returns the box and the losses."""
    if accelerator is not None:
        accelerator.state.use_fp16 = False  # the host asks for it, accelerate has it no more
    box = build(folder, accelerator, text, width)
    torch.manual_seed(1)
    losses = []
    for epoch in range(2):
        box.pre_epoch_process(epoch=epoch)
        for images, targets, supplement in box.train_data_loader:
            loss = box.forward_process(images, targets, supplement)
            box.post_forward_process(loss=loss)
            losses.append(loss.item())
        box.post_epoch_process()
    return box, losses


def test_float32_gives_exactly_what_the_box_gives_without_accelerate(tmp_path):
    expected_box, expected = train(tmp_path, None)
    box, losses = train(tmp_path, Accelerator(cpu=True))
    assert losses == expected
    start = build(tmp_path, None).student_model.named_parameters()
    for (name, value), (_, before) in zip(box.student_model.named_parameters(), start, strict=True):
        assert torch.equal(value, dict(expected_box.student_model.named_parameters())[name])
        assert not torch.equal(value, before), f'{name} did not move'


def test_bfloat16_stays_near_float32_and_the_state_dict_is_the_plain_students(tmp_path):
    _, expected = train(tmp_path, None)
    accelerator = Accelerator(cpu=True, mixed_precision='bf16')
    box, losses = train(tmp_path, accelerator)
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.02)
    assert isinstance(accelerator.unwrap_model(box.student_model), Student4TRG)
    TinyCnn(8).load_state_dict(box.student_model.state_dict(), strict=True)
    assert all(value.dtype == torch.float32 for value in box.student_model.parameters())


def test_the_host_needs_use_fp16_for_a_frozen_teacher(tmp_path, monkeypatch):
    """When this fails, docs/accelerate.md has a line too many, and `trg_torchdistill.accelerate` nothing to do."""
    monkeypatch.delattr(AcceleratorState, 'use_fp16', raising=False)
    with pytest.raises(AttributeError, match='use_fp16'):
        build(tmp_path, Accelerator(cpu=True))


def test_a_module_under_dependencies_gives_it(tmp_path, monkeypatch):
    monkeypatch.delattr(AcceleratorState, 'use_fp16', raising=False)
    monkeypatch.delitem(sys.modules, 'trg_torchdistill.accelerate', raising=False)
    importlib.import_module('trg_torchdistill.accelerate')
    box = build(tmp_path, Accelerator(cpu=True))
    assert {value.dtype for value in box.teacher_model.parameters()} == {torch.float32}


def in_two_processes(rank, folder):
    """The smallest edit, and Student4TRG's error, in one of two processes."""
    os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2', 'LOCAL_WORLD_SIZE': '2'}
    folder = folder / str(rank)
    folder.mkdir()
    accelerator = Accelerator(cpu=True)
    box, losses = train(folder, accelerator, train_yaml(), width=12)
    try:
        train(folder, accelerator)
        error = None
    except ValueError as found:
        error = str(found)
    return accelerator.num_processes, [value.detach() for value in box.student_model.parameters()], losses, error


def test_two_processes(tmp_path):
    (size, first, losses, error), (_, second, other_losses, _) = run_processes(2, in_two_processes, tmp_path, tmp_path)
    assert size == 2
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert losses != other_losses
    assert 'expected `Student4TRG` to be the outermost module of the student, got DistributedDataParallel' in error
