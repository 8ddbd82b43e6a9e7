"""The registered processes by themselves; on real boxes in tests/integration."""

import logging
import re
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchdistill.losses.high_level import WeightedSumLoss
from torchvision.models import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from trg_torchdistill import TokenContextualLoss, TRGLoss
from trg_torchdistill.procs import (
    epoch_in_stage,
    forward_logits_only,
    post_epoch_process_with_trg,
    pre_epoch_process_with_trg,
    relation_losses,
)

PATHS = ('layer4', 'output', 'layer4', 'output')
FIRST, SECOND = torch.full((2, 5), 1.0), torch.full((2, 5), 3.0)
Heads = namedtuple('Heads', ['cls', 'dist'])


class ModelOutput(OrderedDict):
    """Like Hugging Face's: a mapping with its keys as attributes."""

    __getattr__ = OrderedDict.__getitem__


OUTPUTS = {
    'tensor': (FIRST, FIRST),
    'tuple of two heads': ((FIRST, SECOND), torch.full((2, 5), 2.0)),
    'named tuple of two heads': (Heads(FIRST, SECOND), torch.full((2, 5), 2.0)),
    'list of one head': ([SECOND], SECOND),
    'ModelOutput': (ModelOutput(loss=None, logits=SECOND), SECOND),
    'dict': ({'loss': None, 'logits': FIRST}, FIRST),
    'object': (SimpleNamespace(logits=FIRST, hidden_states=()), FIRST),
    'object with two heads': (SimpleNamespace(logits=(FIRST, SECOND)), torch.full((2, 5), 2.0)),
    "GoogLeNet's": (GoogLeNetOutputs(FIRST, SECOND, SECOND), FIRST),
    "Inception's": (InceptionOutputs(FIRST, SECOND), FIRST),
}


class Returns(nn.Module):
    """A model that returns one value and takes the images alone."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        assert images is IMAGES
        return self.value


IMAGES = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(('output', 'logits'), OUTPUTS.values(), ids=OUTPUTS)
def test_logits_of_each_kind_of_output(output, logits):
    assert torch.equal(forward_logits_only(Returns(output), IMAGES), logits)


def test_nothing_but_the_images_reaches_the_model():
    logits = forward_logits_only(Returns(FIRST), IMAGES, torch.zeros(2), {'supp': 1}, whatever='a trainer passes')
    assert logits is FIRST


@pytest.mark.parametrize('output', [None, 'logits', 3, (), [], {}, (1, 2), (FIRST, None), {'loss': FIRST}], ids=str)
def test_output_without_logits(output):
    message = (
        'expected `Returns` to return logits: a tensor, a tuple of tensors or an object with `.logits`, got '
        f'{type(output).__name__}; change `forward_proc:` of this model'
    )
    with pytest.raises(TypeError, match=f'^{re.escape(message)}$'):
        forward_logits_only(Returns(output), IMAGES)


def test_epoch_of_a_box_without_stages():
    box = SimpleNamespace(num_epochs=7)
    assert [epoch_in_stage(box, epoch) for epoch in (0, 6)] == [(0, 7), (6, 7)]


@pytest.mark.parametrize(
    ('stage_number', 'stage_end_epoch', 'epoch', 'expected'),
    [(1, 2, 0, (0, 2)), (1, 2, 1, (1, 2)), (2, 5, 2, (0, 3)), (2, 5, 4, (2, 3)), (3, 6, 5, (0, 1))],
)
def test_epoch_of_a_box_with_stages(stage_number, stage_end_epoch, epoch, expected):
    stages = {f'stage{number}': {'num_epochs': count} for number, count in ((1, 2), (2, 3), (3, 1))}
    box = SimpleNamespace(stage_number=stage_number, stage_end_epoch=stage_end_epoch, train_config=stages, num_epochs=6)
    assert epoch_in_stage(box, epoch) == expected


def training_box(*losses):
    """What the host's training box (without a teacher) offers to a process."""
    terms = {loss.key: {'criterion': loss, 'weight': 1.0} for loss in losses}
    return SimpleNamespace(
        model=nn.Linear(2, 2).eval(),
        model_io_dict={'layer4': {'output': {'cpu': FIRST}}},
        criterion=WeightedSumLoss(sub_terms=terms),
        num_epochs=3,
        distributed=False,
        lr_scheduler=None,
        scheduling_step=0,
    )


def test_pre_epoch_process_runs_the_hosts_own_and_tells_the_epoch():
    loss = TRGLoss(*PATHS, temperature={'start': 0.5, 'end': 0.1})
    box = training_box(loss, TokenContextualLoss(*PATHS))
    pre_epoch_process_with_trg(box, epoch=2, whatever='a trainer passes')
    assert box.model.training
    assert box.model_io_dict == {'layer4': {'output': {}}}
    assert loss.current_temperature == pytest.approx(0.1)
    assert list(relation_losses(box.criterion)) == ['TRGLoss', 'TokenContextualLoss']


def test_pre_epoch_process_without_an_epoch_leaves_the_schedules():
    loss = TRGLoss(*PATHS, temperature={'start': 0.5, 'end': 0.1})
    pre_epoch_process_with_trg(training_box(loss))
    assert loss.current_temperature is None


def test_post_epoch_process_logs_what_there_is(caplog):
    loss = TRGLoss(*PATHS, temperature=0.25, tokens_per_image=2, num_neighbors=1)
    features = [{'layer4': {'output': torch.randn(2, 3, 2, 2)}} for _ in range(2)]
    loss(*features)
    with caplog.at_level(logging.INFO):
        post_epoch_process_with_trg(training_box(loss), metrics=None, whatever='a trainer passes')
    local, global_ = (f'{name} {float(value):.6g}' for name, value in loss.last_terms.items())
    assert caplog.messages == [f'TRGLoss of `TRGLoss`: {local}, {global_}, temperature 0.25']


def test_post_epoch_process_steps_the_scheduler():
    box = training_box()
    optimizer = torch.optim.SGD(box.model.parameters(), lr=1.0)
    box.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    post_epoch_process_with_trg(box)
    assert optimizer.param_groups[0]['lr'] == 0.5
