"""Real architectures at their real input size: `add` upgrades the pair and `check` trains a step of it."""

import importlib

import pytest
from torchdistill.models.registry import MODEL_DICT
from torchvision.models import VisionTransformer

from tests.integration.add_yaml import CONFIG
from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.recipe.deferred import load_deferred

PREFIXES = {f'{side}_tokens': {'num_prefix_tokens': 1} for side in ('student', 'teacher')}
HF_VIT = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 3, 'intermediate_size': 96}
HF_RESNET = {'embedding_size': 16, 'hidden_sizes': [16, 32], 'depths': [1, 1], 'layer_type': 'basic'}


def small_vit():
    return VisionTransformer(224, 32, num_layers=2, num_heads=3, hidden_dim=96, mlp_dim=192)


def timm_resnet():
    return importlib.import_module('timm').create_model('resnet18')


def timm_vit():
    return importlib.import_module('timm').create_model('vit_tiny_patch16_224')


def hf_vit():
    hub = importlib.import_module('transformers')
    return hub.ViTForImageClassification(hub.ViTConfig(**HF_VIT))


def hf_resnet():
    hub = importlib.import_module('transformers')
    return hub.ResNetForImageClassification(hub.ResNetConfig(**HF_RESNET))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('package', 'teacher', 'student', 'ends', 'tokens'),
    [
        ('torchvision', 'resnet50', 'mobilenet_v3_large', ('layer4', 'features'), {}),
        ('torchvision', 'vit_b_16', 'small_vit', ('encoder.layers', 'encoder.layers'), PREFIXES),
        ('torchvision', 'swin_t', 'resnet18', ('features', 'layer4'), {'teacher_tokens': {'layout': 'bhwc'}}),
        ('torchvision', 'convnext_tiny', 'efficientnet_b0', ('features', 'features'), {}),
        ('timm', 'timm_resnet', 'timm_vit', ('layer4', 'blocks'), {'student_tokens': {'num_prefix_tokens': 1}}),
        ('transformers', 'hf_vit', 'hf_resnet', None, {'teacher_tokens': {'num_prefix_tokens': 1}}),
    ],
)
def test_a_pair_is_upgraded_and_trains(tmp_path, monkeypatch, capsys, package, teacher, student, ends, tokens):
    pytest.importorskip(package, reason=f"{package} is not installed; pip install 'trg_torchdistill[hub]'")
    for build in (small_vit, timm_resnet, timm_vit, hf_vit, hf_resnet):
        monkeypatch.setitem(MODEL_DICT, build.__name__, build)
    old, new = tmp_path / 'old.yaml', tmp_path / 'new.yaml'
    text = CONFIG.replace('TEACHER', teacher).replace('STUDENT', student)
    for before, after in (
        ('image_size: [3, 16, 16]', 'image_size: [3, 224, 224]'),
        ('{pretrained_backbone: True}', '{}'),
        ("src_ckpt: './no/such/file.pt'", 'src_ckpt:'),
        ('{dataset_id: *fake_train}', '{dataset_id: *fake_train, sampler: *sampler, kwargs: *loader_kwargs}'),
    ):
        text = text.replace(before, after)
    old.write_text(text)
    assert main(['add', str(old), '-o', str(new)]) == 0
    assert main(['check', str(new), '--steps', '1', '--batch-size', '2']) == 0
    assert 'ok: will train' in capsys.readouterr().out
    term = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg', 'criterion', 'kwargs')
    assert 'projection_module_path' in term
    if ends is not None:  # the names of transformers' modules change with its version
        assert (term['teacher_module_path'], term['student_module_path']) == (ends[0], f'student_model.{ends[1]}')
    assert {key: value for key, value in term.items() if key.endswith('_tokens')} == tokens
