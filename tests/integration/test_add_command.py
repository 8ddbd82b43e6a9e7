"""`trg-torchdistill add`: real YAMLs, real models, and the host's own box that trains what was written."""

import argparse

import pytest
import torch
from torch import nn
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.models.registry import MODEL_DICT, get_model

from tests.integration.host import TinyCnn, TinyHuggingFace, tiny_swin, tiny_vit, train_epoch
from trg_torchdistill.cli import add
from trg_torchdistill.cli.config import ConfigError
from trg_torchdistill.cli.deferred import load_deferred
from trg_torchdistill.cli.edit import list_changes
from trg_torchdistill.procs import relation_losses

CONFIG = """\
# A header that stays.
datasets:
  &fake_train fake/train: !import_call
    _name: &dataset_name 'fake'   # and this
    key: 'torchvision.datasets.FakeData'
    init:
      kwargs:
        size: 12
        image_size: [3, 16, 16]
        num_classes: 5
        transform: !import_call
          key: 'torchvision.transforms.ToTensor'
          init:

models:
  teacher_model:
    key: &teacher_key 'TEACHER'
    kwargs: {pretrained_backbone: True}
    src_ckpt: './no/such/file.pt'
  student_model:
    key: 'STUDENT'
    kwargs: {}
    dst_ckpt: !join ['./resource/', *dataset_name, '-', *teacher_key, '.pt']

train:
  log_freq: 10
  num_epochs: 2
  train_data_loader:
    dataset_id: *fake_train
    sampler: &sampler
      class_or_func: !import_get
        key: 'torch.utils.data.SequentialSampler'
      kwargs:
    kwargs: &loader_kwargs {batch_size: 6, num_workers: 0}
  val_data_loader:
    dataset_id: *fake_train
    sampler: *sampler
    kwargs: *loader_kwargs
  teacher:
    forward_proc: 'forward_batch_only'
    sequential: []
    wrapper: 'DataParallel'
    requires_grad: False
  student:
    forward_proc: 'forward_batch_only'
    sequential: []
    wrapper: 'DistributedDataParallel'
    requires_grad: True
  optimizer:
    key: 'SGD'
    kwargs: {lr: 0.05}
  criterion:
    key: 'WeightedSumLoss'
    kwargs:
      sub_terms:
        kd:
          criterion:
            key: 'KDLoss'
            kwargs:
              student_module_path: '.'
              student_module_io: 'output'
              teacher_module_path: '.'
              teacher_module_io: 'output'
              temperature: 4.0
              alpha: 0.9
              reduction: 'batchmean'
          weight: 1.0
# after the terms

test:
  test_data_loader: {dataset_id: *fake_train}
"""
HOOKED = CONFIG.replace(
    """    sequential: []
    wrapper: 'D""",
    """    sequential: []
    forward_hook: {input: [], output: ['layer3', 'layer4']}
    wrapper: 'D""",
).replace(
    """          weight: 1.0
# after""",
    """          weight: 1.0
        at:
          criterion:
            key: 'ATLoss'
            kwargs:
              at_pairs:
                pair1:
                  teacher: {io: 'output', path: 'layer3'}
                  student: {io: 'output', path: 'layer3'}
                  weight: 1
              mode: 'code'
          weight: 1.0
        mse:
          criterion: {key: 'MSELoss', kwargs: {reduction: 'mean'}}
          criterion_wrapper:
            key: 'SimpleLossWrapper'
            kwargs:
              input: {is_from_teacher: False, module_path: '.', io: 'output'}
              target: {is_from_teacher: True, module_path: '.', io: 'output'}
          weight: 1.0
# after""",
)
STUDENT_BLOCK = """  student:
    forward_proc: 'forward_batch_only'
    sequential: []"""


class HuggingFaceLike(TinyHuggingFace):
    """Takes what the YAML gives it."""


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    wide_student, narrow = {'width': 12}, {'width': 8}
    for key, build in {
        'cnn12': lambda pretrained_backbone=None: _refuse_weights(pretrained_backbone, TinyCnn(**wide_student)),
        'cnn8': lambda pretrained_backbone=None: _refuse_weights(pretrained_backbone, TinyCnn(**narrow)),
        'vit': lambda pretrained_backbone=None: _refuse_weights(pretrained_backbone, tiny_vit()),
        'swin': lambda pretrained_backbone=None: _refuse_weights(pretrained_backbone, tiny_swin()),
        'hf': lambda pretrained_backbone=None: _refuse_weights(pretrained_backbone, HuggingFaceLike()),
    }.items():
        monkeypatch.setitem(MODEL_DICT, key, build)


def _refuse_weights(asked, model):
    assert not asked, 'weights were asked for'
    return model


def run_add(path, *options):
    parser = argparse.ArgumentParser()
    add.add_arguments(parser)
    return add.run(parser.parse_args([str(path), *map(str, options)]))


def upgrade(tmp_path, text, *options, models=('cnn12', 'cnn12')):
    old, new = tmp_path / 'old.yaml', tmp_path / 'new.yaml'
    old.write_text(text.replace('TEACHER', models[0]).replace('STUDENT', models[1]))
    assert run_add(old, '-o', new, *options) == 0
    return old, new


def changes(old, new):
    return list_changes(load_deferred(str(old)).data, load_deferred(str(new)).data)


def lines_taken(old, new):
    kept = iter(new.read_text().splitlines())
    return [line for line in old.read_text().splitlines() if line not in kept]


def train_two_epochs(new):
    config = load_yaml_file(str(new))
    models = [get_model(config['models'][f'{side}_model']['key']) for side in ('teacher', 'student')]
    box = get_distillation_box(*models, config['datasets'], config['train'], torch.device('cpu'), None, False, 1)
    before = [parameter.clone() for parameter in box.student_model.parameters()]
    losses = [loss for epoch in range(2) for loss in train_epoch(box, epoch)]
    assert all(torch.tensor(loss).isfinite() for loss in losses)
    moved = [not torch.equal(*pair) for pair in zip(before, box.student_model.parameters(), strict=True)]
    assert any(moved)
    assert not box.teacher_model.training
    return box


def test_equal_widths_only_add_and_train(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG)
    added, replaced, removed = changes(old, new)
    assert (replaced, removed) == ([], [])
    assert set(added) == {
        'dependencies',
        'train.pre_epoch_process',
        'train.post_epoch_process',
        'train.teacher.forward_hook',
        'train.student.forward_hook',
        'train.criterion.kwargs.sub_terms.trg',
        'train.criterion.kwargs.sub_terms.contextual',
    }
    assert lines_taken(old, new) == []
    printed = capsys.readouterr().out
    assert 'hook layer4' in printed
    assert 'both 12 wide, no projection needed' in printed
    assert f'trg-torchdistill train {new}' in printed
    assert [line for line in printed.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    box = train_two_epochs(new)
    assert set(relation_losses(box.criterion)) == {'trg', 'contextual'}


def test_unequal_widths_get_a_projection_and_lose_the_outer_wrapper(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG, models=('cnn12', 'cnn8'))
    _, replaced, removed = changes(old, new)
    assert (replaced, removed) == (['train.student.wrapper'], [])
    assert lines_taken(old, new) == ["    wrapper: 'DistributedDataParallel'"]
    assert "`wrapper:` was 'DistributedDataParallel', now it is empty" in capsys.readouterr().out
    projectors = load_deferred(str(new)).get('train', 'student', 'auxiliary_model_wrapper', 'kwargs', 'projectors')
    assert projectors == {
        'layer4': {'path': 'student_model.layer4', 'io': 'output', 'in_features': 8, 'out_features': 12}
    }
    box = train_two_epochs(new)
    assert float(box.student_model.projectors['layer4'].linear.weight.grad.abs().sum()) > 0


def test_the_paths_of_other_terms_follow_the_student_into_the_wrapper(tmp_path, capsys):
    old, new = upgrade(tmp_path, HOOKED, models=('cnn12', 'cnn8'))
    _, replaced, removed = changes(old, new)
    assert removed == []
    assert set(replaced) == {
        'train.student.wrapper',
        'train.student.forward_hook.output.0',
        'train.student.forward_hook.output.1',
        'train.criterion.kwargs.sub_terms.at.criterion.kwargs.at_pairs.pair1.student.path',
    }
    assert '3 module paths of the student' in capsys.readouterr().out
    config = load_deferred(str(new))
    assert config.get('train', 'teacher', 'forward_hook', 'output') == ['layer3', 'layer4']
    assert config.get('train', 'student', 'forward_hook', 'output') == [
        'student_model.layer3',
        'student_model.layer4',
        'projectors.layer4',
    ]
    train_two_epochs(new)


def test_a_path_that_could_be_either_models_is_refused(tmp_path):
    text = HOOKED.replace('student: {io:', 'either: {io:').replace('teacher: {io:', 'other: {io:')
    with pytest.raises(ConfigError, match=r"is 'layer3', which both models hook: .* --student-layer"):
        upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    assert not (tmp_path / 'new.yaml').exists()


def test_frozen_modules_and_module_wise_options_follow_too(tmp_path):
    text = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    frozen_modules: ['layer3', 'instance(BatchNorm2d)']")
    text = text.replace(
        'kwargs: {lr: 0.05}',
        "kwargs: {lr: 0.05}\n    module_wise_configs:\n      - {module: 'layer4', kwargs: {lr: 0.1}}",
    )
    _, new = upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    config = load_deferred(str(new))
    assert config.get('train', 'student', 'frozen_modules') == ['student_model.layer3', 'instance(BatchNorm2d)']
    assert config.get('train', 'optimizer', 'module_wise_configs') == [
        {'module': 'student_model.layer4', 'kwargs': {'lr': 0.1}},
        {'module': 'projectors'},
    ]
    wrapper = config.get('train', 'student', 'auxiliary_model_wrapper', 'kwargs')
    assert wrapper['find_unused_parameters'] is True
    box = train_two_epochs(new)
    assert not any(parameter.requires_grad for parameter in box.student_model.student_model.layer3.parameters())


@pytest.mark.parametrize(
    ('models', 'student_tokens', 'teacher_tokens'),
    [
        (('vit', 'cnn8'), None, {'num_prefix_tokens': 1}),
        (('cnn12', 'vit'), {'num_prefix_tokens': 1}, None),
        (('swin', 'cnn8'), None, {'layout': 'bhwc'}),
        (('vit', 'swin'), {'layout': 'bhwc'}, {'num_prefix_tokens': 1}),
    ],
)
def test_transformers_get_their_token_options_and_train(tmp_path, models, student_tokens, teacher_tokens):
    _, new = upgrade(tmp_path, CONFIG, models=models)
    terms = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms')
    for name in ('trg', 'contextual'):
        assert terms[name]['criterion']['kwargs'].get('student_tokens') == student_tokens
        assert terms[name]['criterion']['kwargs'].get('teacher_tokens') == teacher_tokens
    train_two_epochs(new)


def test_a_model_that_returns_an_object_gets_the_process_that_takes_its_logits(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG, models=('cnn8', 'hf'))
    assert changes(old, new)[1] == ['train.student.forward_proc']
    assert "its `forward_proc:` is now 'forward_logits_only'" in capsys.readouterr().out


def test_the_data_set_is_not_built_nothing_random_moves_and_an_alias_keeps_its_meaning(tmp_path):
    text = CONFIG.replace('torchvision.datasets.FakeData', 'no.such.package.Data')
    text = text.replace('  teacher:\n', '  teacher: &teacher\n').replace('test:\n', 'test:\n  _copy: *teacher\n')
    state = torch.get_rng_state()
    old, new = upgrade(tmp_path, text)
    assert torch.equal(state, torch.get_rng_state())
    before, after = load_deferred(str(old)), load_deferred(str(new))
    assert after.get('test', '_copy') == before.get('test', '_copy') == before.get('train', 'teacher')
    assert after.get('train', 'teacher', 'forward_hook') == {'input': [], 'output': ['layer4']}


def test_options_choose_layers_and_weights(tmp_path):
    _, new = upgrade(
        tmp_path,
        CONFIG,
        '--student-layer',
        'layer3',
        '--teacher-layer=layer3.-1',
        '--weight',
        '0.5',
        '--input-size',
        24,
    )
    term = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg')
    assert (term['weight'], term['criterion']['kwargs']['teacher_module_path']) == (0.5, 'layer3.2')


def test_a_second_add_refuses(tmp_path):
    _, new = upgrade(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match='has TRG in it already'):
        run_add(new, '-o', tmp_path / 'third.yaml')
    assert not (tmp_path / 'third.yaml').exists()


def test_diff_prints_and_writes_nothing(tmp_path, capsys):
    (tmp_path / 'old.yaml').write_text(CONFIG.replace('TEACHER', 'cnn8').replace('STUDENT', 'cnn8'))
    assert run_add(tmp_path / 'old.yaml', '--diff') == 0
    assert "+  - name: 'trg_torchdistill'" in capsys.readouterr().out.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ['old.yaml']


SEQUENTIAL = CONFIG.replace('sequential: []', "sequential: ['layer3']", 1)
WRAPPER = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    auxiliary_model_wrapper: {{key: 'X', kwargs: {{}}}}")


@pytest.mark.parametrize(
    ('text', 'options', 'message'),
    [
        (CONFIG.replace('  teacher_model:', '  _teacher_model:'), (), 'to have a teacher, got none'),
        (WRAPPER, (), r"auxiliary_model_wrapper` \(line \d+\) is 'X' already"),
        (SEQUENTIAL, (), r'`train\.teacher\.sequential` \(line \d+\) redesigns the teacher'),
        (CONFIG.replace('requires_grad: False', 'requires_grad: True'), (), 'the teacher is trained'),
        (CONFIG.replace('sub_terms:', '_sub_terms:'), (), r'to have terms under `kwargs\.sub_terms`'),
        (CONFIG, ('--stage', 'stage2'), 'to be a stage with a teacher'),
        (CONFIG, ('--student-layer', 'layer9'), 'got .layer9.; nearest: `layer'),
        (CONFIG, ('--teacher-layer', 'fc.weight'), 'got .fc.weight.'),
        (CONFIG.replace('models:', 'dependencies: [no_such_package]\n\nmodels:'), (), 'to name installed packages'),
        (CONFIG.replace('kwargs: {}', "kwargs: {}\n    repo_or_dir: 'someone/something'"), (), 'without a download'),
        (CONFIG.replace('kwargs: {}', 'kwargs: {colour: 3}'), (), 'refused its arguments'),
        (CONFIG + '}', (), 'to be valid YAML, got on line'),
    ],
)
def test_what_cannot_be_upgraded_is_refused_and_nothing_is_written(tmp_path, text, options, message):
    with pytest.raises(ConfigError, match=message):
        upgrade(tmp_path, text, *options)
    assert [path.name for path in tmp_path.iterdir()] == ['old.yaml']


def test_an_existing_file_is_replaced_on_request_only(tmp_path):
    (tmp_path / 'new.yaml').write_text('mine')
    with pytest.raises(ConfigError, match='--overwrite'):
        upgrade(tmp_path, CONFIG)
    assert (tmp_path / 'new.yaml').read_text() == 'mine'
    upgrade(tmp_path, CONFIG, '--overwrite')
    assert 'trg_torchdistill' in (tmp_path / 'new.yaml').read_text()


def test_a_teacher_that_nobody_froze_is_frozen_and_that_is_said(tmp_path, capsys):
    _, new = upgrade(tmp_path, CONFIG.replace('    requires_grad: False\n', ''))
    assert load_deferred(str(new)).get('train', 'teacher', 'requires_grad') is False
    assert 'the teacher was not frozen' in capsys.readouterr().out
    train_two_epochs(new)


def test_a_hub_model_of_a_local_folder_would_be_built(tmp_path):
    (tmp_path / 'hubconf.py').write_text('import torch\ndef net():\n    return torch.nn.Linear(1, 1)\n')
    text = CONFIG.replace('kwargs: {}', f"kwargs: {{source: 'local'}}\n    repo_or_dir: '{tmp_path}'")
    with pytest.raises(ConfigError, match='to take images of one size'):
        upgrade(tmp_path, text, models=('cnn8', 'net'))
    assert isinstance(nn.Linear(1, 1), nn.Module)
