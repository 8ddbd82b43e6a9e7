import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.utils.data import Subset

from trg_torchdistill.cli.data.classes import class_counts, class_names
from trg_torchdistill.cli.measure.agreement import Confusion, agreement, confusions
from trg_torchdistill.cli.measure.evaluation import Predictions, predict

CPU = torch.device('cpu')


class Part(nn.Module):
    """Returns a part of its input: the batches are the logits of both models, one after the other."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, logits):
        return logits[:, self.columns]


def predictions_of(student, teacher, labels):
    models = [Part(slice(0, student.shape[1])), Part(slice(student.shape[1], None))]
    logits = torch.cat([student, teacher], 1)
    return predict(models, zip(logits.split(10), labels.split(10), strict=True), CPU)


def softmax(row):
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def test_agreement_equals_naive_loops(generator):
    labels = torch.randint(4, (57,), generator=generator)
    truth = torch.eye(4)[labels]
    student, teacher = (truth + torch.randn(57, 4, generator=generator) for _ in range(2))
    found = agreement(predictions_of(student, teacher, labels))
    counts = dict.fromkeys(('both', 'same', 'teacher', 'student', 'apart'), 0)
    alike, divergence = [[] for _ in range(4)], 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        s_class, t_class = s.index(max(s)), t.index(max(t))
        alike[label].append(s_class == t_class)
        if s_class == label:
            counts['both' if t_class == label else 'student'] += 1
        elif t_class == label:
            counts['teacher'] += 1
        else:
            counts['same' if s_class == t_class else 'apart'] += 1
        divergence += sum(p * math.log(p / q) for p, q in zip(softmax(t), softmax(s), strict=True)) / 57
    assert min(counts.values()) > 0
    assert counts == {
        'both': found.both_right,
        'same': found.both_wrong_same,
        'teacher': found.only_teacher_right,
        'student': found.only_student_right,
        'apart': found.both_wrong_differently,
    }
    assert found.num_images == 57
    assert found.share == pytest.approx(100 * (counts['both'] + counts['same']) / 57)
    assert found.per_class == pytest.approx([100 * sum(each) / len(each) for each in alike])
    assert found.divergence == pytest.approx(divergence, rel=1e-5)


def test_a_model_agrees_with_itself(generator):
    logits, labels = torch.randn(20, 3, generator=generator), torch.randint(3, (20,), generator=generator)
    found = agreement(predictions_of(logits, logits, labels))
    assert (found.share, found.divergence, found.num_disagreements) == (100, 0, 0)


def test_models_with_unequally_many_classes_have_no_divergence():
    found = agreement(predictions_of(torch.eye(3), torch.eye(3, 5), torch.tensor([0, 1, 1])))
    assert (found.both_right, found.both_wrong_same, found.divergence) == (2, 1, None)
    assert found.per_class == [100, 100, None, None, None]


def test_a_divergence_that_is_not_finite_is_none():
    logits = torch.tensor([[1.0, float('inf')]])
    assert agreement(predictions_of(logits, torch.eye(2)[:1], torch.tensor([0]))).divergence is None


def test_confusions_are_the_confusion_matrix_off_its_diagonal(generator):
    labels, chosen = (torch.randint(5, (200,), generator=generator) for _ in range(2))
    found = confusions(Predictions(labels, (chosen[:, None],), (5,)))
    matrix = confusion_matrix(labels, chosen, labels=range(5))
    np.fill_diagonal(matrix, 0)
    again = np.zeros_like(matrix)
    for each in found:
        again[each.true, each.predicted] = each.count
    assert (again == matrix).all()
    assert [each.count for each in found] == sorted((each.count for each in found), reverse=True)


def test_confusions_of_equal_count_come_by_class():
    labels, chosen = torch.tensor([2, 0, 0, 1, 2]), torch.tensor([[1], [2], [1], [1], [1]])
    assert confusions(Predictions(labels, (chosen,), (3,))) == [
        Confusion(2, 1, 2),
        Confusion(0, 1, 1),
        Confusion(0, 2, 1),
    ]


def data(**attributes):
    return type('Data', (), {'__len__': lambda self: 3, **attributes})()


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (data(classes=['cat', 'dog']), ['cat', 'dog', '2']),
        (data(classes=[('cat', 'puss'), ('dog',)]), ['cat', 'dog', '2']),
        (data(classes=list('abcdef')), ['a', 'b', 'c']),
        (data(), ['0', '1', '2']),
        (Subset(Subset(data(classes=['cat', 'dog']), [0]), [0]), ['cat', 'dog', '2']),
    ],
)
def test_class_names(dataset, expected):
    assert class_names(dataset, 3) == expected


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (data(targets=[0, 2, 2]), [1, 0, 2]),
        (data(targets=torch.tensor([1, 1])), [0, 2]),
        (data(targets=[0, 1], class_counts=[7, 9]), [7, 9]),
        (Subset(data(targets=[0, 2, 2]), [1, 2]), [0, 0, 2]),
        (data(), None),
        (data(targets=['cat', 'dog']), None),
        (data(targets=[[0], [1, 2]]), None),
        (data(targets=[0.5, 1.5]), None),
        (data(targets=[[0, 1], [1, 0]]), None),
        (Subset(data(), [0]), None),
        (None, None),
    ],
)
def test_class_counts(dataset, expected):
    assert class_counts(dataset) == expected
