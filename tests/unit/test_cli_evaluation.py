import pytest
import torch
from torch import nn

from trg_torchdistill.cli.measure.evaluation import class_groups, evaluate, group_accuracy, unbalanced_counts


class Scores(nn.Module):
    """Returns its input: the batches are the logits."""

    def forward(self, logits):
        return logits


def naive(logits, labels, k):
    hits = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda index: -row[index])[:k]
        hits += label in best
    return 100 * hits / len(labels)


@pytest.mark.parametrize(('num_classes', 'k'), [(3, 3), (5, 5), (7, 5)])
def test_accuracy_equals_a_naive_count(num_classes, k, generator):
    logits = torch.randn(23, num_classes, generator=generator)
    labels = torch.randint(num_classes, (23,), generator=generator)
    accuracy = evaluate(Scores(), zip(logits.split(10), labels.split(10), strict=True), torch.device('cpu'))
    assert accuracy.top1 == naive(logits, labels, 1)
    assert accuracy.top5 == naive(logits, labels, k)
    assert accuracy.num_images == 23
    for label in range(num_classes):
        chosen = labels == label
        assert accuracy.per_class[label] == naive(logits[chosen], labels[chosen], 1)


def test_a_class_without_images_has_no_accuracy():
    accuracy = evaluate(Scores(), [(torch.eye(3)[:2], torch.tensor([0, 2]))], torch.device('cpu'))
    assert accuracy.per_class == [100.0, None, 0.0]


def test_a_label_that_the_model_does_not_know_is_wrong():
    accuracy = evaluate(Scores(), [(torch.eye(3)[:2], torch.tensor([0, 7]))], torch.device('cpu'))
    assert accuracy.top1 == 50
    assert accuracy.per_class == [100.0, None, None, None, None, None, None, 0.0]


def test_batches_with_a_third_part_and_eval_mode():
    model = Scores()
    accuracy = evaluate(model, [(torch.eye(2), torch.tensor([0, 1]), {})], torch.device('cpu'))
    assert accuracy.as_dict() == {'top1': 100.0, 'top5': 100.0, 'per_class': [100.0, 100.0], 'n': 2}
    assert not model.training


def test_no_batch():
    with pytest.raises(ValueError, match='expected at least one batch to evaluate on, got none'):
        evaluate(Scores(), [], torch.device('cpu'))


@pytest.mark.parametrize(('num_classes', 'sizes'), [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 2, 1)), (10, (4, 3, 3))])
def test_groups_are_thirds_by_training_images(num_classes, sizes):
    counts = [10 * (label + 1) for label in range(num_classes)]
    per_class = [float(label) for label in range(num_classes)]
    largest_first = per_class[::-1]
    many, medium = sizes[0], sizes[0] + sizes[1]
    parts = {'many': largest_first[:many], 'medium': largest_first[many:medium], 'few': largest_first[medium:]}
    assert tuple(map(len, parts.values())) == sizes
    assert group_accuracy(per_class, counts) == {name: sum(part) / len(part) for name, part in parts.items()}


def test_groups_by_shots_have_the_bounds_of_imagenet_lt():
    counts = [100, 19, 101, 20, 1280, 5]
    assert class_groups(counts, 'shots') == {'many': [4, 2], 'medium': [0, 3], 'few': [1, 5]}
    per_class = [10.0, 20.0, 30.0, 40.0, None, 60.0]
    assert group_accuracy(per_class, counts, 'shots') == {'many': 30.0, 'medium': 25.0, 'few': 40.0}


def test_a_group_by_shots_may_be_empty():
    assert group_accuracy([50.0, 70.0], [40, 30], 'shots') == {'many': None, 'medium': 60.0, 'few': None}


def test_a_group_leaves_out_classes_without_test_images():
    assert group_accuracy([50.0, None, None], [3, 2, 1]) == {'many': 50.0, 'medium': None, 'few': None}


@pytest.mark.parametrize(('counts', 'expected'), [(None, None), ([5, 5], None), ([5, 2], [5, 2])])
def test_only_unbalanced_counts_make_groups(counts, expected):
    dataset = type('Data', (), {} if counts is None else {'class_counts': counts})
    assert unbalanced_counts(dataset) == expected
