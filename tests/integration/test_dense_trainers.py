"""torchdistill's own segmentation and detection trainers, unmodified: train with TRG, save, reload, test.

They are not in torchdistill's wheel, and need pycocotools: see test_example_trainer.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from test_example_trainer import CHECKOUT, LAUNCHER_VARIABLES, pytestmark  # noqa: F401
from torchdistill.models.registry import get_model
from torchvision.models import detection

TASKS = Path(__file__).parents[2] / 'benchmarks' / 'tasks'
EXAMPLES = Path(CHECKOUT) / 'examples' / 'torchvision'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    python(folder, TASKS / 'shapes.py', '.', '--train', '32', '--val', '8')
    return folder


def python(folder, *words):
    environment = {name: value for name, value in ranks.environment().items() if name not in LAUNCHER_VARIABLES}
    environment['PYTHONPATH'] = os.pathsep.join([str(TASKS), environment['PYTHONPATH']])
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def trained(folder, shapes, name, script, *flags):
    """The logs of a training with what `add` makes of a YAML, and of a test of what it saved."""
    pytest.importorskip('pycocotools', reason='the COCO trainers of torchdistill need pycocotools')
    (folder / 'shapes').symlink_to(shapes)
    old, new = folder / 'old.yaml', folder / 'config.yaml'
    old.write_text((TASKS / 'configs' / f'{name}.yaml').read_text().replace('num_epochs: 10', 'num_epochs: 2'))
    python(EXAMPLES, '-m', 'trg_torchdistill', 'add', old, '-o', new, '--contextual-weight', '1')
    words = (EXAMPLES / script, '--config', 'config.yaml', '--device', 'cpu', '--seed', '1', *flags)
    log, again = python(folder, *words), python(folder, *words, '-test_only')
    assert 'Updating ckpt at ./student.pt' in log
    assert 'Start training' not in again
    assert log.count('TRGLoss of `trg`: local ') == log.count('TokenContextualLoss of `contextual`: contextual ') == 2
    return log, again, torch.load(folder / 'student.pt', weights_only=False)['model']


def test_segmentation(tmp_path, shapes, monkeypatch):
    log, again, weights = trained(tmp_path, shapes, 'segmentation_kd', 'semantic_segmentation.py', '--num_classes', '5')
    assert again.rsplit('mean IoU', 1)[1] == log.rsplit('mean IoU', 1)[1]
    monkeypatch.syspath_prepend(str(TASKS))
    __import__('shapes_model')
    get_model('fcn_cifar_resnet', backbone='resnet8', num_classes=5).load_state_dict(weights, strict=True)


def test_detection(tmp_path, shapes):
    log, again, weights = trained(tmp_path, shapes, 'detection', 'object_detection.py')
    assert again.rsplit('Average Precision', 6)[1:] == log.rsplit('Average Precision', 6)[1:]
    student = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights_backbone=None, num_classes=17)
    student.load_state_dict(weights, strict=True)
