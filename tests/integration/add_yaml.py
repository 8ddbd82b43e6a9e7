"""A small YAML without TRG for the tests of `trg-torchdistill add`, and what they do with it."""

import argparse
import difflib
import functools
import textwrap

import pytest
import torch
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.models.registry import MODEL_DICT, get_model

from tests.integration.host import TinyCnn, TinyHuggingFace, tiny_swin, tiny_vit, train_epoch
from trg_torchdistill.cli.add import command as add
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.edit import list_changes

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
_STAGE = CONFIG[CONFIG.index('  num_epochs') : CONFIG.index('# after')]
STAGES = CONFIG.replace(
    _STAGE,
    f'  stage1:\n{textwrap.indent(_STAGE, "  ")}  stage2:\n'
    + textwrap.indent(_STAGE.replace('    sampler: &sampler', '    sampler: &sampler2'), '  ').replace(
        '&loader', '&other'
    ),
)


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Models by key that refuse to be built with weights."""
    models = {'cnn12': (TinyCnn, 12), 'cnn8': (TinyCnn, 8), 'vit': (tiny_vit,), 'swin': (tiny_swin,)}
    for key, (build, *args) in {**models, 'hf': (TinyHuggingFace,)}.items():
        monkeypatch.setitem(MODEL_DICT, key, functools.partial(_without_weights, build, *args))


def _without_weights(build, *args, pretrained_backbone=None):
    if pretrained_backbone:
        raise AssertionError('weights were asked for')
    return build(*args)


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
    compared = difflib.ndiff(old.read_text().splitlines(), new.read_text().splitlines())
    return [line[2:] for line in compared if line.startswith('- ')]


def train_all_epochs(new, moves='', teacher_is_frozen=True):
    """Trains what was written; a frozen teacher must be in eval mode and a module of the student must move."""
    config = load_yaml_file(str(new))
    models = [get_model(config['models'][f'{side}_model']['key'], None) for side in ('teacher', 'student')]
    box = get_distillation_box(*models, config['datasets'], config['train'], torch.device('cpu'), None, False, 1)
    watched = list(box.student_model.get_submodule(moves).parameters())
    before = [parameter.clone() for parameter in watched]
    losses = [loss for epoch in range(box.num_epochs) for loss in train_epoch(box, epoch)]
    assert all(torch.tensor(loss).isfinite() for loss in losses)
    assert not all(torch.equal(*pair) for pair in zip(before, watched, strict=True))
    assert box.teacher_model.training != teacher_is_frozen
    return box
