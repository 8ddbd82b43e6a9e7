"""`torch.compile` of a student step with our losses: equal to eager mode, in one graph from torch 2.15 on.

Older releases may not trace some of the Python in between, and compile the graphs around it.
"""

import shutil

import pytest
import torch
from helpers import assert_close
from loss_table import ENDS
from torch import nn
from torch._dynamo.utils import counters

from trg_torchdistill import TokenContextualLoss, TRGLoss

pytestmark = pytest.mark.slow

NUM_EPOCHS = 12
IN_ONE_GRAPH = torch.__version__ >= '2.15'


class Step(nn.Module):
    """A student's forward pass with cross-entropy and both our losses."""

    def __init__(self, **options):
        super().__init__()
        self.student, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 5)
        self.trg = TRGLoss(**ENDS, **options)
        self.contextual = TokenContextualLoss(**ENDS)

    def forward(self, images, labels, teacher_map):
        feature = self.student(images)
        features = {'map': {'output': feature}}, {'map': {'output': teacher_map}}
        logits = self.head(feature.mean((2, 3)))
        return nn.functional.cross_entropy(logits, labels) + self.trg(*features) + self.contextual(*features)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    counters.clear()


def _loss_and_gradients(step, forward, batch):
    torch.manual_seed(1)
    loss = forward(*batch)
    return loss, torch.autograd.grad(loss, tuple(step.parameters()))


def _assert_equal_steps(step, batch, **options):
    expected, wanted = _loss_and_gradients(step, step, batch)
    loss, gradients = _loss_and_gradients(step, torch.compile(step, **options), batch)
    assert_close(loss, expected, rtol=1e-5)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert_close(gradient, other, rtol=1e-4, atol=1e-6)


def _batch():
    return torch.randn(6, 3, 9, 9), torch.randint(5, (6,)), torch.randn(6, 4, 4, 4)


@pytest.mark.parametrize('tokens_per_image', [None, 3])
def test_a_student_step_compiles(tokens_per_image):
    _assert_equal_steps(Step(tokens_per_image=tokens_per_image), _batch(), fullgraph=IN_ONE_GRAPH, backend='aot_eager')


@pytest.mark.skipif(shutil.which('c++') is None, reason='the default compiler of torch needs a C++ compiler')
def test_a_student_step_compiles_to_machine_code():
    """All tokens: of some, compiled code draws others than eager mode from the same seed."""
    _assert_equal_steps(Step(tokens_per_image=None), _batch(), fullgraph=IN_ONE_GRAPH)


def test_epochs_and_temperatures_are_followed_and_do_not_compile_again():
    """One graph for the first step, one for the steps after it, one for any temperature that changes."""
    step, twin = (Step(tokens_per_image=None, temperature={'start': 0.5, 'end': 0.1}) for _ in range(2))
    twin.load_state_dict(step.state_dict())
    compiled = torch.compile(step, backend='aot_eager')
    batch = _batch()
    for epoch in range(NUM_EPOCHS):
        for each, forward in ((step, compiled), (twin, twin)):
            each.trg.start_epoch(epoch, NUM_EPOCHS)
            each.contextual.start_epoch(epoch, NUM_EPOCHS)
            for _ in range(3):
                forward(*batch).backward()
        means, wanted = ({**each.trg.epoch_means(), **each.contextual.epoch_means()} for each in (step, twin))
        assert means == pytest.approx(wanted, rel=1e-5)
    if IN_ONE_GRAPH:
        assert counters['stats']['unique_graphs'] <= 3
        assert not counters['graph_break']
