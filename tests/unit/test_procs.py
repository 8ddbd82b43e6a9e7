"""Logits in whatever a model returns; the processes of an epoch, on real boxes, are in tests/integration."""

import re
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from trg_torchdistill import Student4TRG
from trg_torchdistill.errors import TRGError
from trg_torchdistill.procs import forward_logits_only, outline

FIRST, SECOND = torch.full((2, 5), 1.0), torch.full((2, 5), 3.0)
Heads = namedtuple('Heads', ['cls', 'dist'])


class ModelOutput(OrderedDict):
    """Like Hugging Face's: a mapping with its keys as attributes."""

    __getattr__ = OrderedDict.__getitem__


NEAR, FAR = torch.randn(2, 5), torch.randn(2, 7)  # features, as wide as there are classes and wider
MAP = torch.randn(2, 7, 4, 4)
OUTPUTS = {
    'tensor': (FIRST, FIRST),
    'list of one head': ([SECOND], SECOND),
    'ModelOutput': (ModelOutput(loss=None, logits=SECOND), SECOND),
    'dict': ({'loss': None, 'logits': FIRST}, FIRST),
    'object': (SimpleNamespace(logits=FIRST, hidden_states=()), FIRST),
    'object with two heads': (SimpleNamespace(logits=(FIRST, SECOND)), torch.full((2, 5), 2.0)),
    "GoogLeNet's": (GoogLeNetOutputs(FIRST, SECOND, SECOND), FIRST),
    "Inception's": (InceptionOutputs(FIRST, SECOND), FIRST),
    'logits and a map': ((FIRST, MAP), FIRST),
    'maps and logits': (([MAP, MAP], FIRST), FIRST),
    "mdistiller's": ((FIRST, {'feats': [MAP], 'pooled_feat': FAR}), FIRST),
    "a tuple of Hugging Face's": ((torch.tensor(0.5), FIRST, (MAP, MAP)), FIRST),
    'logits and nothing': ((FIRST, None), FIRST),
}


class Returns(nn.Module):
    """A model that returns one value and takes the images alone."""

    def __init__(self, value, **attributes):
        super().__init__()
        self.value = value
        for name, attribute in attributes.items():
            setattr(self, name, attribute)

    def forward(self, images):
        assert images is IMAGES
        return self.value


IMAGES = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(('output', 'logits'), OUTPUTS.values(), ids=OUTPUTS)
def test_logits_of_each_kind_of_output(output, logits):
    found = forward_logits_only(Returns(output), IMAGES, torch.zeros(2), {'supp': 1}, whatever='a trainer passes')
    assert torch.equal(found, logits)


@pytest.mark.parametrize('output', [(FIRST, SECOND), Heads(FIRST, SECOND), [FIRST, SECOND]], ids=outline)
@pytest.mark.parametrize('attribute', ['distilled_training', 'head_dist'])
def test_heads_are_averaged_where_the_model_says_that_it_has_two(output, attribute):
    says = {attribute: True}
    for model in (Returns(output, **says), Returns(output, head=Returns(None, **says))):
        assert torch.equal(forward_logits_only(model, IMAGES), torch.full((2, 5), 2.0))


@pytest.mark.parametrize(
    ('output', 'attributes'),
    [
        ((FIRST, SECOND), {}),
        ((FIRST, SECOND), {'distilled_training': False, 'head_dist': True}),
        ((FIRST, FAR), {'head_dist': True}),
        ((FIRST, SECOND, MAP), {'head_dist': True}),
        ((FAR, MAP), {'num_classes': 5}),
        ((FIRST, FAR), {'fc': nn.Linear(7, 5)}),
        ((FIRST, FAR), {'num_classes': 9}),
    ],
    ids=lambda value: outline(value) if isinstance(value, tuple) else str([*value]),
)
def test_what_may_be_a_feature_is_neither_taken_nor_averaged(output, attributes):
    message = f'expected `Returns` to return logits, .* got {re.escape(outline(output))}; change `forward_proc:`'
    with pytest.raises(TRGError, match=message):
        forward_logits_only(Returns(output, **attributes), IMAGES)


@pytest.mark.parametrize('feature', [NEAR, FAR], ids=['as wide as the classes', 'wider'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_logits_are_what_a_linear_layer_makes_of_the_feature(feature, dtype):
    classifier = nn.Linear(feature.shape[1], 5)
    parts = {'proj': nn.Linear(feature.shape[1], 3), 'fc': nn.Sequential(nn.Dropout(0.0), classifier)}
    fired = []
    classifier.register_forward_hook(lambda *_: fired.append(1))
    with torch.autocast('cpu', dtype, enabled=dtype is not torch.float32):
        logits = classifier(feature)
        for output in ((logits, feature), [feature, logits], (MAP, logits, feature)):
            assert forward_logits_only(Returns(output, **parts), IMAGES) is logits
        with pytest.raises(TRGError, match='to return logits'):  # the projection may be the logits as well
            forward_logits_only(Returns((logits, feature, parts['proj'](feature)), **parts), IMAGES)
    assert len(fired) == 1


def test_logits_have_as_many_columns_as_the_model_says_that_it_has_classes():
    for output in ((FIRST, FAR), (FAR, MAP, FIRST)):
        model = Returns(output, num_classes=5, backbone=Returns(None, num_classes=0))
        assert forward_logits_only(model, IMAGES) is FIRST


def test_the_message_names_the_plain_student():
    student = Returns((FIRST, SECOND))
    options = {'path': 'student_model', 'io': 'output', 'in_features': 5, 'out_features': 6}
    cpu = torch.device('cpu')
    wrapped = Student4TRG(cpu, None, False, {'logits': options}, student_model=student)
    for model in (wrapped, nn.DataParallel(student)):
        with pytest.raises(TRGError, match='expected `Returns` to return logits'):
            forward_logits_only(model, IMAGES)


def test_a_distilled_deit_in_both_modes():
    timm = pytest.importorskip('timm', reason="timm is not installed; pip install 'trg_torchdistill[hub]'")
    model = timm.create_model('deit_tiny_distilled_patch16_224', num_classes=5, depth=1, img_size=32)
    images = torch.rand(2, 3, 32, 32)
    evaluated = forward_logits_only(model.eval(), images)
    model.set_distilled_training()
    assert len(model.train()(images)) == 2
    assert torch.allclose(forward_logits_only(model, images), evaluated, atol=1e-5)


@pytest.mark.parametrize('output', [None, 'logits', 3, (), [], {}, (1, 2), (MAP, MAP), {'loss': FIRST}], ids=outline)
def test_output_without_logits(output):
    message = (
        'expected `Returns` to return logits, alone, as `.logits` or beside features that can be told from them, got '
        f'{outline(output)}; change `forward_proc:` of this model, or return `.logits`'
    )
    with pytest.raises(TypeError, match=f'^{re.escape(message)}$'):
        forward_logits_only(Returns(output), IMAGES)


def test_outline_of_what_a_model_returned():
    assert (
        outline((FIRST, [MAP, None], {'logits': FIRST}))
        == 'tuple (Tensor [2, 5], list (Tensor [2, 7, 4, 4], NoneType), dict)'
    )
