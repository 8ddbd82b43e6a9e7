"""torchdistill's own example trainer, unmodified, in a process of its own: train, save, reload, test, resume.

The trainer is not in torchdistill's wheel. Point TORCHDISTILL_EXAMPLES at a checkout of its repository:

    git clone https://github.com/yoshitomo-matsubara/torchdistill /tmp/td
    TORCHDISTILL_EXAMPLES=/tmp/td python -m pytest tests/integration/test_example_trainer.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from host import BOTH_PROCESSES, HOOKED, SRD_TERM, trg_term
from tiny import CE, KD, STEP_LR, TRG, TRG_SIDES, stage, stages, tiny_net, whole_yaml, write

from trg_torchdistill.cli.main import main

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

FULL_SIDES = TRG_SIDES.replace('forward_batch_only', 'forward_logits_only')
FULL_SIDES = FULL_SIDES.replace("pre_epoch_process: 'pre_epoch_process_with_trg'\n", BOTH_PROCESSES)
FULL_SIDES = FULL_SIDES.replace('requires_grad: False', "requires_grad: False\n  wrapper: 'DataParallel'")
FULL_SIDES = FULL_SIDES.replace('{projectors: {', "{projector_ckpt: './projectors.pt', projectors: {")
FULL = stage(2, KD + TRG, FULL_SIDES, more=STEP_LR)
SMALLEST = stage(2, CE + trg_term('layer2', 'layer2'), HOOKED)
KD_ONLY = stage(2, KD)
SRD_INPUT = "input_module: {path: 'model.layer2', io: 'output'}, norm_kwargs: {num_features: 6}"
SRD = f"{{key: 'SRDModelWrapper', kwargs: {{{SRD_INPUT}"
BESIDE = f"""
teacher:
  forward_proc: 'forward_batch_only'
  requires_grad: False
  auxiliary_model_wrapper: {SRD}}}}}
  forward_hook: {{input: [], output: ['model.layer2', 'norm_layer']}}
student:
  forward_proc: 'forward_batch_only'
  auxiliary_model_wrapper: {SRD}, linear_kwargs: {{in_features: 4, out_features: 6}}}}}}
  forward_hook: {{input: [], output: ['model.layer2', 'norm_layer']}}
"""


def run(folder, train, *flags, change=('', '')):
    """Runs the example trainer in `folder`; returns what it logged. Its failure is the test's."""
    text = whole_yaml(folder, train, dst_ckpt='./student.pt').replace(*change)
    write(folder, text.replace('width: 4', 'width: 6') if train is SMALLEST else text)
    return launch(folder, *flags)


def launch(folder, *flags):
    environment = {name: value for name, value in ranks.environment().items() if name not in LAUNCHER_VARIABLES}
    done = subprocess.run(
        [sys.executable, SCRIPT, '--config', 'config.yaml', '--device', 'cpu', '--seed', '1', *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '[Student: tiny_net]' in done.stderr
    return done.stderr


def assert_plain_checkpoint(folder, width=4):
    saved = torch.load(folder / 'student.pt', weights_only=False)
    student = tiny_net(width)
    student.load_state_dict(saved['model'], strict=True)
    assert student(torch.zeros(1, 3, 8, 8)).shape == (1, 6)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('full_method')
    return folder, run(folder, FULL, '--run_log', 'log.txt')


def test_full_method_trains_saves_reloads_and_tests(trained):
    folder, log = trained
    assert 'Updating ckpt at ./student.pt' in log
    assert 'ckpt file is not found at `./student.pt`' not in log
    assert '[Teacher: tiny_net]' in log
    assert_plain_checkpoint(folder)


def test_full_method_logs_its_terms_and_its_temperature(trained):
    folder, log = trained
    lines = [line for line in log.splitlines() if 'TRGLoss of `trg`: local ' in line]
    assert [line.split('temperature ')[1] for line in lines] == ['0.5', '0.1']
    assert log.count('TokenContextualLoss of `context`: contextual ') == 2
    assert 'TRGLoss of `trg`' in (folder / 'log.txt').read_text()


def test_full_method_writes_its_projectors(trained):
    projectors = torch.load(trained[0] / 'projectors.pt', weights_only=True)
    shapes = {name: list(value.shape) for name, value in projectors['p'].items()}
    assert shapes == {'linear.weight': [6, 4], 'linear.bias': [6]}


def test_only_testing_gives_the_accuracy_of_the_training_run(trained):
    folder, log = trained
    again = run(folder, FULL, '-test_only')
    assert 'Start training' not in again
    assert _last_accuracy(again) == _last_accuracy(log)


def test_resume(trained):
    folder, _ = trained
    goes_on = FULL.replace('num_epochs: 2', 'num_epochs: 4')
    log = run(folder, goes_on, '--start_epoch', '2', change=('src_ckpt:\n', "src_ckpt: './student.pt'\n"))
    assert 'Loaded projections of the student tokens from projectors.pt' in log
    assert 'Loading optimizer parameters' in log
    lines = [line for line in log.splitlines() if 'TRGLoss of `trg`: local ' in line]
    temperatures = [float(line.split('temperature ')[1]) for line in lines]
    assert temperatures == pytest.approx([0.2, 0.1], abs=1e-3)
    assert_plain_checkpoint(folder)


@pytest.mark.parametrize(
    ('train', 'width', 'ours'),
    [
        (SMALLEST, 6, False),
        (KD_ONLY, 4, False),
        (stages(KD_ONLY, FULL), 4, True),
        (stages(FULL, FULL), 4, True),
        (stages(FULL, KD_ONLY), 4, True),
    ],
    ids=['smallest edit', 'plain KD', 'KD, then TRG', 'TRG, then TRG', 'TRG, then KD'],
)
def test_other_configs(tmp_path, train, width, ours):
    log = run(tmp_path, train)
    assert ('TRGLoss of `trg`: local ' in log) == ours
    assert_plain_checkpoint(tmp_path, width)


def _last_accuracy(log):
    return log.strip().rsplit('Acc@1', 1)[1]


def test_what_add_writes_beside_another_wrapper(tmp_path):
    """The wrapper of SRD alone, at torchdistill's newest commit, ends with a checkpoint that does not load."""
    train = stage(2, KD + SRD_TERM, BESIDE)
    old = write(tmp_path, whole_yaml(tmp_path, train, dst_ckpt='./student.pt'), 'old.yaml')
    assert main(['add', old, '-o', str(tmp_path / 'config.yaml'), '--input-size', '8']) == 0
    assert 'inner: {key: ' in (tmp_path / 'config.yaml').read_text()
    assert 'TRGLoss of `trg`: local ' in launch(tmp_path)
    assert_plain_checkpoint(tmp_path)
