"""Models of timm and transformers by name: what they return, the options they take, and the errors."""

import copy
import sys

import pytest
import torch
from torchdistill.models.registry import get_model

from trg_torchdistill.errors import TRGError
from trg_torchdistill.models import hf_image_classifier, timm
from trg_torchdistill.tokens import Tokenizer

TINY_VIT = {
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'num_attention_heads': 3,
    'intermediate_size': 24,
    'image_size': 32,
    'patch_size': 8,
}
TIMM_VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 12, 'depth': 2, 'num_heads': 3}


def test_timm_builds_what_timm_has():
    model = get_model('timm', None, model_name='resnet10t', num_classes=7, options={'drop_rate': 0.5})
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert model.drop_rate == 0.5


def test_timm_has_the_mobilenet_v1_of_the_imagenet_pair():
    model = timm('mobilenetv1_100')
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_231_976
    features = {}
    model.blocks.register_forward_hook(lambda _, __, output: features.update(map=output.shape))
    model(torch.rand(2, 3, 64, 64))
    assert features['map'] == (2, 1024, 2, 2)


@pytest.mark.parametrize(
    ('build', 'layer'),
    [
        (lambda: timm('vit_tiny_patch16_224', num_classes=5, options=TIMM_VIT), 'blocks'),
        (lambda: hf_image_classifier('vit', 5, TINY_VIT), 'vit.layernorm'),
    ],
)
def test_tokens_of_a_vit_are_where_the_docstring_says(build, layer):
    model, features = build(), {}
    model.get_submodule(layer).register_forward_hook(lambda _, __, output: features.update(sequence=output))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert Tokenizer(num_prefix_tokens=1)(features['sequence']).shape == (2, 12, 4, 4)


@pytest.mark.parametrize(
    ('model_type', 'config'),
    [
        ('vit', TINY_VIT),
        ('deit', TINY_VIT),
        ('resnet', {'embedding_size': 8, 'hidden_sizes': [8, 16], 'depths': [1, 1], 'layer_type': 'basic'}),
    ],
)
def test_hugging_face_gives_logits_in_training_and_evaluation(model_type, config):
    model = get_model('hf_image_classifier', None, model_type=model_type, num_classes=5, config=config)
    images = torch.rand(2, 3, 32, 32)
    assert model.train()(images).shape == (2, 5)
    assert torch.is_tensor(copy.deepcopy(model).eval()(images))
    assert not any(key.startswith('model.') for key in model.state_dict())


def test_hugging_face_weights_come_from_a_folder(tmp_path):
    saved = hf_image_classifier('vit', 5, TINY_VIT)
    saved.save_pretrained(tmp_path)
    loaded = hf_image_classifier('vit', 5, TINY_VIT, weights=str(tmp_path))
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.state_dict().items())
    assert loaded.training
    with pytest.raises(RuntimeError, match='ize'):
        hf_image_classifier('vit', 6, TINY_VIT, weights=str(tmp_path))


@pytest.mark.parametrize(
    ('build', 'kwargs', 'message'),
    [
        (timm, {'model_name': 'resnet10'}, '`model_name` to be a model of timm, got .resnet10.; did you mean'),
        (timm, {'model_name': None}, '`model_name` to be a non-empty string, got None; .* model `timm`'),
        (timm, {'num_classes': 0}, '`num_classes` .* got 0; .* model `timm`'),
        (timm, {'pretrained': 'no'}, '`pretrained` to be true or false'),
        (timm, {'options': [1]}, r'`options` to be a mapping or null, got \[1\]'),
        (timm, {'options': {'foo': 1}}, "argument 'foo'; .* model `timm`"),
        (hf_image_classifier, {'model_type': 'vitt'}, "got 'vitt'; did you mean `vit`.; .* `hf_image_classifier`"),
        (hf_image_classifier, {'model_type': 3}, '`model_type` to be a non-empty string, got 3'),
        (hf_image_classifier, {'num_classes': 0}, '`num_classes` to be an integer >= 1, got 0'),
        (hf_image_classifier, {'config': {'hidden_siz': 1}}, "values of `ViTConfig`, got 'hidden_siz'; did you mean"),
        (hf_image_classifier, {'config': 'tiny'}, "`config` to be a mapping or null, got 'tiny'"),
        (hf_image_classifier, {'weights': 1}, '`weights` to be a non-empty string, got 1'),
    ],
)
def test_bad_arguments_are_refused(build, kwargs, message):
    good = {timm: {'model_name': 'resnet10t'}, hf_image_classifier: {'model_type': 'vit', 'num_classes': 5}}
    with pytest.raises(TRGError, match=message):
        build(**{**good[build], **kwargs})


@pytest.mark.parametrize(
    ('package', 'key', 'build'),
    [
        ('timm', 'timm', lambda: timm('resnet10t')),
        ('transformers', 'hf_image_classifier', lambda: hf_image_classifier('vit', 5)),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, package, key, build):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TRGError, match=rf"{package}, which the model `{key}` .* 'trg_torchdistill\[hub\]'"):
        build()
