"""torchdistill's own example trainer, unmodified, in a process of its own: train, save, reload, test, resume.

The trainer is not in torchdistill's wheel. Point TORCHDISTILL_EXAMPLES at a checkout of its repository:

    git clone https://github.com/yoshitomo-matsubara/torchdistill /tmp/td
    TORCHDISTILL_EXAMPLES=/tmp/td python -m pytest tests/integration/test_example_trainer.py
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from trg_torchdistill.models import resnet8

CHECKOUT = os.environ.get('TORCHDISTILL_EXAMPLES', '')
SCRIPT = Path(CHECKOUT) / 'examples' / 'torchvision' / 'image_classification.py'
LAUNCHER_VARIABLES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'SLURM_PROCID')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHECKOUT,
        reason='set TORCHDISTILL_EXAMPLES to a checkout of github.com/yoshitomo-matsubara/torchdistill, e.g. '
        '`git clone https://github.com/yoshitomo-matsubara/torchdistill /tmp/td && '
        'TORCHDISTILL_EXAMPLES=/tmp/td python -m pytest tests/integration/test_example_trainer.py`',
    ),
]

COMMON = """
dependencies:
  - name: 'trg_torchdistill'
datasets:
  &train_id train: !import_call
    key: 'torchvision.datasets.FakeData'
    init:
      kwargs: &data
        size: 48
        image_size: [3, 32, 32]
        num_classes: 10
        transform: !import_call {key: 'torchvision.transforms.ToTensor', init: }
  &val_id val: !import_call
    key: 'torchvision.datasets.FakeData'
    init:
      kwargs: *data
models:
  teacher_model: {key: 'resnet20', kwargs: {num_classes: 10}}
  student_model: {key: 'resnet8', kwargs: {num_classes: 10}, src_ckpt: SRC_CKPT, dst_ckpt: './student.pt'}
test:
  test_data_loader: &loader
    dataset_id: *val_id
    sampler: {class_or_func: !import_get {key: 'torch.utils.data.SequentialSampler'}, kwargs: }
    kwargs: {batch_size: 20, num_workers: 0}
train:
  log_freq: 100
"""
STAGE = """
num_epochs: 2
train_data_loader:
  dataset_id: *train_id
  sampler: {class_or_func: !import_get {key: 'torch.utils.data.RandomSampler'}, kwargs: }
  kwargs: {batch_size: 16, num_workers: 0, drop_last: True}
val_data_loader: *loader
teacher:
  forward_proc: 'forward_logits_only'
  requires_grad: False
  wrapper: 'DataParallel'
  forward_hook: {input: [], output: ['layer3']}
optimizer: {key: 'SGD', kwargs: {lr: 0.01, momentum: 0.9}}
scheduler: {key: 'MultiStepLR', kwargs: {milestones: [1], gamma: 0.1}}
"""
FULL = """
pre_epoch_process: 'pre_epoch_process_with_trg'
post_epoch_process: 'post_epoch_process_with_trg'
student:
  forward_proc: 'forward_logits_only'
  wrapper:
  auxiliary_model_wrapper:
    key: 'Student4TRG'
    kwargs:
      projectors:
        layer2: {path: 'student_model.layer2', io: 'output', in_features: 32, out_features: 64}
      projector_ckpt: './projectors.pt'
  forward_hook: {input: [], output: ['student_model.layer2', 'projectors.layer2']}
criterion:
  key: 'WeightedSumLoss'
  kwargs:
    sub_terms:
      kd: KD
      trg:
        criterion:
          key: 'TRGLoss'
          kwargs:
            student_module_path: 'student_model.layer2'
            student_module_io: 'output'
            teacher_module_path: 'layer3'
            teacher_module_io: 'output'
            projection_module_path: 'projectors.layer2'
            temperature: {start: 0.5, end: 0.1, schedule: 'linear'}
        weight: 1.0
      contextual:
        criterion:
          key: 'TokenContextualLoss'
          kwargs:
            student_module_path: 'student_model.layer2'
            student_module_io: 'output'
            teacher_module_path: 'layer3'
            teacher_module_io: 'output'
        weight: 1.0
"""
SMALLEST = """
student:
  forward_proc: 'forward_batch_only'
  forward_hook: {input: [], output: ['layer3']}
criterion:
  key: 'WeightedSumLoss'
  kwargs:
    sub_terms:
      kd: KD
      trg:
        criterion:
          key: 'TRGLoss'
          kwargs:
            student_module_path: 'layer3'
            student_module_io: 'output'
            teacher_module_path: 'layer3'
            teacher_module_io: 'output'
        weight: 1.0
"""
KD_ONLY = """
student: {forward_proc: 'forward_batch_only'}
criterion: {key: 'WeightedSumLoss', kwargs: {sub_terms: {kd: KD}}}
"""
KD = (
    "{criterion: {key: 'KDLoss', kwargs: {student_module_path: '.', student_module_io: 'output', "
    "teacher_module_path: '.', teacher_module_io: 'output', temperature: 4.0, alpha: 0.5}}, weight: 1.0}"
)


def config(*stages, src_ckpt='', num_epochs=2):
    text = COMMON.replace('SRC_CKPT', src_ckpt)
    for number, stage in enumerate(stages, 1):
        block = (STAGE + stage).replace('kd: KD', f'kd: {KD}').replace('num_epochs: 2', f'num_epochs: {num_epochs}')
        name = f'  stage{number}:\n' if len(stages) > 1 else ''
        text += name + textwrap.indent(block, '    ' if name else '  ')
    return text


def run(folder, text, *flags):
    """Runs the example trainer in `folder`; returns what it logged. Its failure is the test's."""
    (folder / 'config.yaml').write_text(text)
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    done = subprocess.run(
        [sys.executable, SCRIPT, '--config', 'config.yaml', '--device', 'cpu', '--seed', '1', *flags],
        cwd=folder,
        env={**environment, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '[Student: resnet8]' in done.stderr
    return done.stderr


def assert_plain_checkpoint(folder):
    saved = torch.load(folder / 'student.pt', weights_only=False)
    student = resnet8()
    student.load_state_dict(saved['model'], strict=True)
    assert student(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('full_method')
    return folder, run(folder, config(FULL), '--run_log', 'log.txt')


def test_full_method_trains_saves_reloads_and_tests(trained):
    folder, log = trained
    assert 'Updating ckpt at ./student.pt' in log
    assert 'ckpt file is not found at `./student.pt`' not in log
    assert '[Teacher: resnet20]' in log
    assert_plain_checkpoint(folder)


def test_full_method_logs_its_terms_and_its_temperature(trained):
    folder, log = trained
    lines = [line for line in log.splitlines() if 'TRGLoss of `trg`: local ' in line]
    assert [line.split('temperature ')[1] for line in lines] == ['0.5', '0.1']
    assert log.count('TokenContextualLoss of `contextual`: contextual ') == 2
    assert 'TRGLoss of `trg`' in (folder / 'log.txt').read_text()


def test_full_method_writes_its_projectors(trained):
    projectors = torch.load(trained[0] / 'projectors.pt', weights_only=True)
    assert {name: list(value.shape) for name, value in projectors['layer2'].items()} == {
        'linear.weight': [64, 32],
        'linear.bias': [64],
    }


def test_only_testing_gives_the_accuracy_of_the_training_run(trained):
    folder, log = trained
    again = run(folder, config(FULL), '-test_only')
    assert 'Start training' not in again
    assert _last_accuracy(again) == _last_accuracy(log)


def test_resume(trained):
    folder, _ = trained
    log = run(folder, config(FULL, src_ckpt="'./student.pt'", num_epochs=4), '--start_epoch', '2')
    assert 'Loaded projections of the student tokens from projectors.pt' in log
    assert 'Loading optimizer parameters' in log
    lines = [line for line in log.splitlines() if 'TRGLoss of `trg`: local ' in line]
    temperatures = [float(line.split('temperature ')[1]) for line in lines]
    assert temperatures == pytest.approx([0.5 - 0.4 * 2 / 3, 0.1], abs=1e-3)
    assert_plain_checkpoint(folder)


@pytest.mark.parametrize(
    ('stages', 'ours'),
    [((SMALLEST,), False), ((KD_ONLY,), False), ((KD_ONLY, FULL), True), ((FULL, FULL), True), ((FULL, KD_ONLY), True)],
    ids=['smallest edit', 'plain KD', 'KD, then TRG', 'TRG, then TRG', 'TRG, then KD'],
)
def test_other_configs(tmp_path, stages, ours):
    log = run(tmp_path, config(*stages))
    assert ('TRGLoss of `trg`: local ' in log) == ours
    assert_plain_checkpoint(tmp_path)


def _last_accuracy(log):
    return log.strip().rsplit('Acc@1', 1)[1]
