"""The models of the experiments: the field's parameter counts, tokens of each, and a step that learns."""

import inspect

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torchdistill.models import classification  # noqa: F401  registers torchdistill's models
from torchdistill.models.registry import MODEL_DICT, get_model

from trg_torchdistill.cli.probe.layers import choose_layer
from trg_torchdistill.cli.probe.probe import run_model
from trg_torchdistill.errors import TRGError
from trg_torchdistill.models import vit
from trg_torchdistill.registration import TABLE

# Key: parameters at 100 classes, layer of the tokens, their map [C, H, W] or sequence [N, C] for an image of 32 x 32.
ZOO = {
    'resnet8': (83_892, 'layer3', (64, 8, 8)),
    'resnet8x4': (1_233_540, 'layer3', (256, 8, 8)),
    'resnet32x4': (7_433_860, 'layer3', (256, 8, 8)),
    'wrn_16_2': (703_284, 'relu', (128, 8, 8)),
    'wrn_40_1': (569_780, 'relu', (64, 8, 8)),
    'wrn_40_2': (2_255_156, 'relu', (128, 8, 8)),
    'vgg8': (3_965_028, 'block4', (512, 4, 4)),
    'vgg13_cifar': (9_462_180, 'block4', (512, 4, 4)),
    'mobilenetv2_cifar': (812_836, 'conv2', (1280, 2, 2)),
    'shufflenetv1_cifar': (949_258, 'layer3', (960, 4, 4)),
    'shufflenetv2_cifar': (1_355_528, 'conv5', (1024, 4, 4)),
    'vit_cifar_tiny': (213_796, 'blocks', (64, 64)),
}
# torchdistill's own, which are the field's: nothing of ours is needed for these.
HOSTS = {
    'resnet20': (278_324, 'layer3', (64, 8, 8)),
    'resnet32': (472_756, 'layer3', (64, 8, 8)),
    'resnet56': (861_620, 'layer3', (64, 8, 8)),
    'resnet110': (1_736_564, 'layer3', (64, 8, 8)),
}
# Modules before the layer of the tokens: what a feature-based method would hook too, with their maps.
STAGES = {
    'resnet8x4': {'layer1': (64, 32, 32), 'layer2': (128, 16, 16)},
    'wrn_16_2': {'layer1': (32, 32, 32), 'layer2': (64, 16, 16)},
    'vgg8': {'block1': (128, 16, 16), 'block2': (256, 8, 8), 'block3': (512, 4, 4)},
    'mobilenetv2_cifar': {'blocks.1': (12, 16, 16), 'blocks.4': (48, 4, 4), 'blocks.6': (160, 2, 2)},
    'shufflenetv1_cifar': {'layer1': (240, 16, 16), 'layer2': (480, 8, 8)},
    'vit_cifar_tiny': {'patches': (64, 8, 8), 'blocks.1': (64, 64), 'grid': (64, 8, 8)},
    'shufflenetv2_cifar': {'stage2': (116, 16, 16), 'stage3': (232, 8, 8), 'stage4': (464, 4, 4)},
}


def build(key, **kwargs):
    return get_model(key, None, **{'num_classes': 100, **kwargs})


@pytest.mark.parametrize('key', [*ZOO, *HOSTS])
def test_it_has_the_parameters_of_the_field_and_its_tokens_are_those_that_add_proposes(key):
    parameters, layer, shape = {**ZOO, **HOSTS}[key]
    model = build(key)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    probe = run_model(key, model, (32, 32))
    assert probe.num_logits == 100
    chosen = choose_layer(probe, 'student')
    assert (chosen.path, chosen.shape[1:]) == (layer, shape)
    assert (chosen.layout, chosen.tokens) == ('bchw' if len(shape) == 3 else 'bnd', {})
    stages = STAGES.get(key, {})
    assert {path: probe.record(path).shape[1:] for path in stages} == stages


@pytest.mark.parametrize('key', ZOO)
def test_it_learns_a_step(key):
    """Four images, one small step along the gradient: the loss on them falls, and no parameter is left out."""
    model = build(key, num_classes=5)
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    before = functional.cross_entropy(model(images), labels)
    before.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    squared = sum(value.grad.square().sum() for value in model.parameters())
    with torch.no_grad():
        for value in model.parameters():
            value -= 0.01 * before * value.grad / squared
        assert functional.cross_entropy(model(images), labels) < before


@pytest.mark.parametrize('key', ZOO)
@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'num_classes': 0}, '`num_classes` to be an integer >= 1, got 0; .* of the model `KEY`'),
        ({'num_classes': '10'}, '`num_classes` to be an integer .* of the model `KEY`'),
        ({'pretrained': False}, 'pretrained'),
    ],
)
def test_it_refuses_bad_keywords(key, kwargs, message):
    with pytest.raises(TypeError, match=message.replace('KEY', key)):
        MODEL_DICT[key](**kwargs)


@pytest.mark.parametrize(
    ('key', 'name', 'value', 'message'),
    [
        ('wrn_16_2', 'dropout_p', -0.1, '`dropout_p` to be .* of the model `wrn_16_2`'),
        ('wrn_16_2', 'dropout_p', 1, '`dropout_p` to be .* of the model `wrn_16_2`'),
        ('wrn_16_2', 'dropout_p', float('nan'), '`dropout_p` to be .* of the model `wrn_16_2`'),
        ('resnet8', 'zero_init_residual', 1, '`zero_init_residual` to be true or false, got 1'),
        ('resnet8', 'norm_layer', 'BatchNorm2d', "`norm_layer` to be a module class .* got 'BatchNorm2d'"),
    ],
)
def test_options_of_some_are_checked(key, name, value, message):
    with pytest.raises(TRGError, match=message):
        MODEL_DICT[key](**{name: value})


def test_resnet8_takes_the_options_of_its_host():
    model = MODEL_DICT['resnet8'](num_classes=3, norm_layer=nn.InstanceNorm2d)
    assert isinstance(model.bn1, nn.InstanceNorm2d)
    assert MODEL_DICT['resnet8'](zero_init_residual=True).layer1[0].bn2.weight.abs().sum() == 0


def test_no_model_has_a_name_that_the_example_trainer_looks_up_elsewhere_first():
    ours = {entry.key for entry in TABLE if entry.kind == 'model'}
    assert set(ZOO) < ours
    assert ours & {*vars(torchvision.models), *vars(torchvision.models.quantization)} == set()
    registered = {key for key, builder in MODEL_DICT.items() if builder.__module__.startswith('trg_torchdistill')}
    assert registered == ours
    parameters = [each for key in ours for each in inspect.signature(MODEL_DICT[key]).parameters.values()]
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters)


def test_the_encoder_of_the_vit_is_that_of_torch():
    own = vit.Block().double()
    torchs = nn.TransformerEncoderLayer(
        vit.WIDTH, vit.HEADS, 4 * vit.WIDTH, dropout=0.0, activation='gelu', batch_first=True, norm_first=True
    ).double()
    torchs.load_state_dict(own.state_dict())
    tokens = torch.randn(2, 5, vit.WIDTH, dtype=torch.float64)
    assert_close(own(tokens), torchs(tokens))
    found, wanted = (
        torch.autograd.grad(block(tokens).square().sum(), [*block.parameters()]) for block in (own, torchs)
    )
    assert_close(found, wanted)
    with torch.no_grad():
        assert_close(own.eval()(tokens), torchs.eval()(tokens))
