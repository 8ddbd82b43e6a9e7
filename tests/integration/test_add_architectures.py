"""Real architectures at their real input size: `add` upgrades the pair and `check` trains a step of it."""

import functools

import pytest
import torch
from torchdistill.models.registry import MODEL_DICT
from torchvision.models import VisionTransformer

from tests.integration.add_yaml import CONFIG
from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.recipe.deferred import load_deferred

SMALL_VIT = functools.partial(
    VisionTransformer, image_size=224, patch_size=32, num_layers=2, num_heads=3, hidden_dim=96, mlp_dim=192
)


def _upgrade_and_check(folder, teacher, student, capsys):
    """Returns the TRG term that `add` wrote."""
    old, new = folder / 'old.yaml', folder / 'new.yaml'
    text = CONFIG.replace('image_size: [3, 16, 16]', 'image_size: [3, 224, 224]').replace('TEACHER', teacher)
    text = text.replace('STUDENT', student).replace('{pretrained_backbone: True}', '{}')
    text = text.replace("src_ckpt: './no/such/file.pt'", 'src_ckpt:')
    old.write_text(
        text.replace(
            '{dataset_id: *fake_train}', '{dataset_id: *fake_train, sampler: *sampler, kwargs: *loader_kwargs}'
        )
    )
    assert main(['add', str(old), '-o', str(new)]) == 0
    assert main(['check', str(new), '--steps', '1', '--batch-size', '2']) == 0
    assert 'ok: will train' in capsys.readouterr().out
    return load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg', 'criterion', 'kwargs')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('teacher', 'student', 'teacher_path', 'student_path', 'has_projection'),
    [
        ('resnet50', 'mobilenet_v3_large', 'layer4', 'features', True),
        ('vit_b_16', 'small_vit', 'encoder.layers', 'encoder.layers', True),
        ('swin_t', 'resnet18', 'features', 'layer4', True),
        ('convnext_tiny', 'efficientnet_b0', 'features', 'features', True),
    ],
)
def test_torchvision_pairs(tmp_path, monkeypatch, capsys, teacher, student, teacher_path, student_path, has_projection):
    monkeypatch.setitem(MODEL_DICT, 'small_vit', SMALL_VIT)
    term = _upgrade_and_check(tmp_path, teacher, student, capsys)
    assert term['teacher_module_path'] == teacher_path
    assert term['student_module_path'] == f'student_model.{student_path}'
    assert ('projection_module_path' in term) == has_projection


@pytest.mark.slow
def test_a_timm_pair(tmp_path, monkeypatch, capsys):
    timm = pytest.importorskip('timm', reason="timm is not installed; pip install 'trg_torchdistill[hub]'")
    monkeypatch.setitem(MODEL_DICT, 'timm_teacher', functools.partial(timm.create_model, 'resnet18'))
    monkeypatch.setitem(MODEL_DICT, 'timm_student', functools.partial(timm.create_model, 'vit_tiny_patch16_224'))
    term = _upgrade_and_check(tmp_path, 'timm_teacher', 'timm_student', capsys)
    assert term['teacher_module_path'] == 'layer4'
    assert term['student_module_path'] == 'student_model.blocks'
    assert term['student_tokens'] == {'num_prefix_tokens': 1}


@pytest.mark.slow
def test_a_hugging_face_pair(tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip(
        'transformers', reason="transformers is not installed; pip install 'trg_torchdistill[hub]'"
    )

    def vit():
        config = hub.ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96)
        return hub.ViTForImageClassification(config)

    def resnet():
        config = hub.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type='basic')
        return hub.ResNetForImageClassification(config)

    monkeypatch.setitem(MODEL_DICT, 'hf_vit', vit)
    monkeypatch.setitem(MODEL_DICT, 'hf_resnet', resnet)
    term = _upgrade_and_check(tmp_path, 'hf_vit', 'hf_resnet', capsys)
    assert term['teacher_tokens'] == {'num_prefix_tokens': 1}
    assert torch.is_tensor(vit()(torch.zeros(1, 3, 224, 224)).logits)
