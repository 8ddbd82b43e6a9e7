import pytest
import torch
import torchvision
from torch import nn
from torchdistill.models.registry import get_model

from trg_torchdistill.models import resnet8


def test_resnet8_is_small_and_gives_logits():
    model = resnet8()
    assert sum(parameter.numel() for parameter in model.parameters()) == 78_042
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_resnet8_has_one_block_a_stage_and_the_layer_of_the_deeper_ones():
    features = {}
    for name, model in (('resnet8', resnet8()), ('resnet20', get_model('resnet20', None, num_classes=10))):
        model.layer3.register_forward_hook(lambda _, __, output, name=name: features.update({name: output.shape}))
        model(torch.rand(2, 3, 32, 32))
    assert features['resnet8'] == features['resnet20'] == (2, 64, 8, 8)
    assert [len(getattr(resnet8(), f'layer{stage}')) for stage in (1, 2, 3)] == [1, 1, 1]


def test_resnet8_is_registered_under_a_name_that_torchvision_does_not_have():
    assert 'resnet8' not in vars(torchvision.models)
    assert get_model('resnet8', None, num_classes=7)(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_resnet8_takes_the_options_of_its_host():
    model = resnet8(num_classes=3, norm_layer=nn.InstanceNorm2d)
    assert isinstance(model.bn1, nn.InstanceNorm2d)
    assert resnet8(zero_init_residual=True).layer1[0].bn2.weight.abs().sum() == 0


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        ({'num_classes': 0}, ValueError, '`num_classes` to be an integer >= 1, got 0; .* model `resnet8`'),
        ({'num_classes': '10'}, TypeError, '`num_classes`'),
        ({'zero_init_residual': 1}, TypeError, '`zero_init_residual` to be true or false, got 1'),
        ({'norm_layer': 'BatchNorm2d'}, TypeError, "`norm_layer` to be a module class .* got 'BatchNorm2d'"),
        ({'pretrained': False}, TypeError, 'pretrained'),
    ],
)
def test_resnet8_refuses_bad_keywords(kwargs, error, message):
    with pytest.raises(error, match=message):
        resnet8(**kwargs)
