"""What `lasting.py measure` says of students, on made-up images, and what the tables make of it."""

import importlib
import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize
from torchdistill.models.registry import get_model

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def lasting(grid, data, tmp_path, monkeypatch):
    """Stages of `lasting.py` for a small ViT that is trained for one epoch on seven of ten classes."""
    lasting, measures = (importlib.import_module(name) for name in ('lasting', 'measures'))
    small = replace(lasting.LASTING['vit_7'], batch_size=8, schedules=(1,))
    monkeypatch.setitem(lasting.LASTING, 'vit_7', small)
    monkeypatch.setitem(grid.SETTINGS, 'vit_7', {'imbalance': 4, 'num_samples': 28, 'classes': 7})
    digits = measures._digits
    monkeypatch.setattr(measures, '_digits', lambda split: tuple(part[:40] for part in digits(split)))
    torch.manual_seed(0)
    torch.save({'model': get_model('wrn_16_2', num_classes=10).state_dict()}, tmp_path / 'cpu-teacher.pt')

    def stage(name):
        files = {'lines': tmp_path / 'lines.jsonl', 'measures': tmp_path / 'measures.jsonl'}
        words = [word for option, file in files.items() for word in (f'--{option}', str(file))]
        words += ['--settings', 'vit_7', '--data', str(data), '--out', str(tmp_path), '--methods', 'kd']
        monkeypatch.setattr(sys, 'argv', ['lasting.py', name, *words])
        with pytest.raises(SystemExit) as ended:
            lasting.main()
        assert ended.value.code == 0
        return [
            [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            for file in files.values()
        ]

    return stage


def test_what_is_measured_of_a_student_that_saw_seven_classes(lasting, run_stage, tmp_path, capfd):
    (note,), _ = lasting('run')
    _, (teacher, student) = lasting('measure')
    assert (teacher['run'], student['run']) == ('teacher', note['run'])
    assert teacher['last']['agreement'] == 100
    assert student['best']['top1'] == pytest.approx(note['test_top1'], abs=1e-3)
    assert note['test_per_class'][7:] == [None] * 3
    assert set(student['last']['groups']) == {'many', 'medium', 'few'}
    assert set(student['features']) == {'digits', 'unseen'}
    assert all(0 <= value <= 100 for task in student['features'].values() for value in task.values())

    folder = tmp_path / note['run']
    assert main(['eval', str(folder / 'config.yaml'), '--json', str(tmp_path / 'eval.json'), '--device', 'cpu']) == 0
    said = json.loads((tmp_path / 'eval.json').read_text())['agreement']
    assert said['n'] == 14
    assert student['best']['agreement'] == pytest.approx(said['top1'], abs=1e-3)
    assert student['best']['divergence'] == pytest.approx(said['divergence'], abs=1e-3)

    state = torch.load(folder / 'last.pt', weights_only=True)
    state['modules']['student']['fc.bias'][3] += 1000  # the last epoch takes all for one class
    torch.save(state, folder / 'last.pt')
    (tmp_path / 'measures.jsonl').unlink()
    _, (teacher, student) = lasting('measure')
    assert student['last']['top1'] == pytest.approx(100 / 7, abs=1e-3)
    assert student['last']['ece'] == pytest.approx(100 - 100 / 7, abs=1e-3)
    capfd.readouterr()
    assert lasting('measure')[1] == [teacher, student]  # nothing is left to do
    assert 'measured' not in capfd.readouterr().out


def test_calibration_error_is_that_of_a_loop_over_bins(grid):
    measures = importlib.import_module('measures')
    torch.manual_seed(0)
    probabilities, labels = torch.randn(200, 5, dtype=torch.float64).mul(2).softmax(1), torch.randint(5, (200,))
    expected = 0.0
    for place in range(15):
        inside = [
            (float(row.max()), int(row.argmax()) == int(label))
            for row, label in zip(probabilities, labels, strict=True)
            if place / 15 < float(row.max()) <= (place + 1) / 15
        ]
        if inside:
            confidence, accuracy = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            expected += 100 * len(inside) / 200 * abs(accuracy - confidence)
    assert measures.calibration_error(probabilities, labels) == pytest.approx(expected)
    assert measures.calibration_error(torch.eye(5)[labels], labels) == 0


def test_features_that_tell_the_classes_apart_are_worth_everything(grid):
    measures = importlib.import_module('measures')
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels] + 0.01 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    learned, tested = (features[:30], labels[:30]), (features[30:], labels[30:])
    assert measures.probe(learned, tested) == {'knn': 100, 'linear': 100}
    assert measures.probe(learned, (features[30:], labels[30:].add(1) % 3)) == {'knn': 0, 'linear': 0}


def test_manifold_distillation_is_its_three_sums(grid):
    references = importlib.import_module('_references')
    student, teacher = (torch.randn(3, 4, width, dtype=torch.float64, requires_grad=True) for width in (5, 7))
    chosen = torch.tensor([7, 2, 11, 5, 0])

    def squares(groups):
        """Mean square of the differences of all cosines of two tokens of a group."""
        found = [
            (sum(a[one] * a[other]) - sum(b[one] * b[other])) ** 2
            for a, b in groups
            for one in range(len(a))
            for other in range(len(a))
        ]
        return sum(found) / len(found)

    units = [normalize(each, dim=2) for each in (student, teacher)]
    images = squares([(units[0][b], units[1][b]) for b in range(3)])
    places = squares([(units[0][:, n], units[1][:, n]) for n in range(4)])
    drawn = squares([tuple(torch.stack([each[i // 4, i % 4] for i in chosen.tolist()]) for each in units)])
    expected = 4 * images + 0.1 * places + 0.2 * drawn
    found = references.manifold_loss(student, teacher, chosen)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, student, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
