"""torchdistill's own text trainer, unmodified, with what `add` wrote into a YAML for it: train, save, reload, test.

As for test_example_trainer.py, TORCHDISTILL_EXAMPLES names a checkout of torchdistill's repository. The trainer needs
what `examples/hf_transformers/requirements.txt` of it names; data, models, vocabulary and metric are local.
"""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
from tiny_bert import save
from transformers import BertForSequenceClassification

from trg_torchdistill.cli.main import main

CHECKOUT = os.environ.get('TORCHDISTILL_EXAMPLES', '')
SCRIPT = Path(CHECKOUT) / 'examples' / 'hf_transformers' / 'text_classification.py'
TASKS = Path(__file__).parents[2] / 'benchmarks' / 'tasks'
NUM_LABELS = 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHECKOUT or importlib.util.find_spec('datasets') is None,
        reason='set TORCHDISTILL_EXAMPLES to a checkout of github.com/yoshitomo-matsubara/torchdistill, and run '
        '`pip install -r examples/hf_transformers/requirements.txt` there',
    ),
]


def run(folder, *flags):
    """Runs the trainer; returns what it logged. Its failure is the test's."""
    path = os.pathsep.join(filter(None, [str(TASKS), os.environ.get('PYTHONPATH')]))
    environment = {**ranks.environment(), 'PYTHONPATH': path, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(folder / 'cache')}
    done = subprocess.run(
        [sys.executable, SCRIPT, '--config', 'trg.yaml', '--seed', '1', *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('texts')
    for name, width in (('trained_teacher', 24), ('student', 16)):
        save(folder / name, width, 0, num_labels=NUM_LABELS)
    for split in ('train', 'validation', 'test'):
        rows = [(f'word{label} ' * (3 + label), label) for label in range(NUM_LABELS)]
        with (folder / f'{split}.csv').open('w', newline='') as file:
            csv.writer(file).writerows([('text', 'topic'), *rows * 4])
    (folder / 'kd.yaml').write_text((TASKS / 'configs' / 'text_kd.yaml').read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(SCRIPT.parent)  # the trainer's package `custom`
        assert main(['add', 'kd.yaml', '-o', 'trg.yaml', '--contextual-weight', '1']) == 0
    return folder, run(folder)


def test_it_trains_saves_and_reloads_the_plain_student(trained):
    folder, log = trained
    assert 'Updating ckpt at ./trained_student' in log
    assert log.count('TRGLoss of `trg`: local ') == 5
    assert log.count('TokenContextualLoss of `contextual`: contextual ') == 5
    assert '[Student: student]' in log
    student = BertForSequenceClassification.from_pretrained(folder / 'trained_student')
    assert student.bert.config.hidden_size == 16


def test_only_testing_gives_the_accuracies_of_the_training_run(trained):
    folder, log = trained
    accuracies = [re.findall(r'Test: accuracy = (\S+)', text) for text in (log, run(folder, '-test_only'))]
    assert len(accuracies[0]) == 2
    assert accuracies[0] == accuracies[1]
