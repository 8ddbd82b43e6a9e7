import copy
import pickle
import sys
from collections import Counter

import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Subset, random_split
from torchvision.transforms import ToTensor

from trg_torchdistill.datasets import Digits, LongTailed
from trg_torchdistill.errors import TRGError


class Listed:
    """A map-style data set that lists its labels only if its classes have names; counts its reads."""

    def __init__(self, labels, classes=None):
        self.all_labels, self.reads = labels, 0
        if classes is not None:
            self.targets, self.classes, self.transform = torch.tensor(labels), classes, None

    def __len__(self):
        return len(self.all_labels)

    def __getitem__(self, index):
        self.reads += 1
        return f'item {index}', self.all_labels[index]


def listed(sizes):
    """A data set with so many items of each class."""
    return Listed([label for label, size in enumerate(sizes) for _ in range(size)])


@pytest.mark.parametrize(('split', 'size', 'counts'), [('train', 1000, {100}), ('val', 197, None), ('test', 600, {60})])
def test_digits_have_the_documented_sizes(split, size, counts):
    digits = Digits(split)
    assert len(digits) == len(digits.targets) == size
    assert digits.split == split
    assert digits.classes == [str(digit) for digit in range(10)]
    found = Counter(digits.targets)
    assert sorted(found) == list(range(10))
    assert counts in (None, set(found.values()))


def test_the_splits_have_each_original_once():
    original = load_digits()
    pixels = torch.from_numpy(original.images).float() / 16
    found = [Digits(split, size=8, transform=ToTensor()) for split in ('train', 'val', 'test')]
    items = [data[index] for data in found for index in range(len(data))]
    positions = [int((pixels - image[0]).abs().amax((1, 2)).argmin()) for image, _ in items]
    torch.testing.assert_close(
        torch.stack([image for image, _ in items]),
        pixels[positions, None].expand(-1, 3, 8, 8),
        atol=0.5 / 255 + 1e-6,
        rtol=0,
    )
    assert [target for _, target in items] == original.target[positions].tolist()
    assert sorted(positions) == list(range(1797))
    assert positions[0] == 0


def test_digits_give_rgb_pictures_of_the_size_and_plain_integers():
    image, target = Digits('val', size=20)[3]
    assert (image.mode, image.size) == ('RGB', (20, 20))
    assert type(target) is int


def test_a_picture_that_is_changed_does_not_change_the_data_set():
    digits = Digits('val')
    image, _ = digits[0]
    image.paste((255, 0, 0), (0, 0, 32, 32))
    assert digits[0][0].getpixel((0, 0)) != (255, 0, 0)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'split': 'valid'}, "be one of 'train', 'val', 'test', got 'valid'.*under the `kwargs:`"),
        ({'split': None}, '`split`'),
        ({'split': 'val', 'size': 7}, '`size` to be an integer >= 8, got 7'),
        ({'split': 'val', 'size': '32'}, "`size` to be an integer >= 8, got '32'"),
        ({'split': 'val', 'transform': 'ToTensor'}, "`transform` to be a function .* got 'ToTensor'"),
    ],
)
def test_digits_refuse_bad_arguments(kwargs, message):
    with pytest.raises(TRGError, match=message):
        Digits(**kwargs)


def test_digits_name_the_extra_that_brings_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(TRGError, match=r"pip install 'trg_torchdistill\[demo\]'"):
        Digits('val')


@pytest.mark.parametrize(
    ('sizes', 'imbalance', 'expected'),
    [
        ([5000] * 10, 100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT
        ([100] * 10, 20, [100, 71, 51, 36, 26, 18, 13, 9, 6, 5]),
        ([10] * 3, 1, [10, 10, 10]),
        ([7], 50, [7]),
        ([9] * 2, 3.0, [9, 3]),
        ([40, 50, 5], 4, [20, 10, 5]),  # what the scarcest class allows
    ],
)
def test_the_profile_is_the_one_of_cifar_lt(sizes, imbalance, expected):
    chosen = LongTailed(listed(sizes), imbalance)
    assert chosen.class_counts == expected
    assert [Counter(chosen.targets)[label] for label in range(len(sizes))] == expected
    assert len(chosen) == sum(expected)


@pytest.mark.parametrize(('imbalance', 'num_samples'), [(1, 50), (1, 53), (20, 150), (7.5, 99)])
def test_num_samples_is_met_exactly_and_keeps_the_order(imbalance, num_samples):
    counts = LongTailed(listed([100] * 10), imbalance, num_samples=num_samples).class_counts
    assert sum(counts) == num_samples
    assert counts == sorted(counts, reverse=True)
    if imbalance == 1:
        assert max(counts) - min(counts) <= 1


def test_items_targets_and_indices_agree():
    labels = [2, 0, 1, 0, 2, 1, 0, 0, 2, 1]
    chosen = LongTailed(Listed(labels), 2)
    assert chosen.targets == [labels[index] for index in chosen.indices]
    items = [chosen[position] for position in range(len(chosen))]
    assert items == [(f'item {index}', labels[index]) for index in chosen.indices]
    assert len(set(chosen.indices)) == len(chosen)


def test_the_seed_decides_the_selection_and_the_global_generator_does_not():
    def select(seed):
        torch.rand(3)
        return LongTailed(listed([50] * 4), 5, seed=seed).indices

    assert select(0) == select(0)
    assert select(0) != select(1)


def test_targets_are_used_when_there_are_any():
    dataset = Listed([0, 0, 1, 1], ['cat', 'dog'])
    chosen = LongTailed(dataset, 2)
    assert dataset.reads == 0
    assert chosen.classes == ['cat', 'dog']
    assert all(type(target) is int for target in chosen.targets)
    assert LongTailed(Listed([0, 0, 1, 1]), 2).classes == ['0', '1']


def test_a_subset_is_read_through_its_own_indices():
    subset = Subset(Listed([0, 1, 0, 1, 0, 1], ['a', 'b']), [1, 2, 3, 4])
    chosen = LongTailed(subset, 1)
    assert chosen.class_counts == [2, 2]
    assert subset.dataset.reads == 0
    assert sorted(chosen[position][1] for position in range(4)) == [0, 0, 1, 1]


def test_the_transform_of_the_inner_data_set_is_reachable():
    inner = Listed([0, 1], ['a', 'b'])
    chosen = LongTailed(inner, 1)
    chosen.transform = str.upper
    assert chosen.transform is inner.transform is str.upper
    assert not hasattr(LongTailed(Listed([0, 1]), 1), 'transform')


def test_both_can_be_split_copied_and_sent_to_a_worker():
    chosen = LongTailed(Digits('train', transform=ToTensor()), 10, num_samples=60)
    parts = random_split(chosen, [40, 20])
    assert sum(len(part) for part in parts) == 60
    for other in (copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen))):
        assert other.indices == chosen.indices
        assert torch.equal(other[5][0], chosen[5][0])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'imbalance': 0.5}, '`imbalance` to be a number >= 1, got 0.5.*under the `kwargs:`'),
        ({'imbalance': '100'}, '`imbalance`'),
        ({'imbalance': float('inf')}, '`imbalance`'),
        ({'imbalance': 2, 'seed': -1}, '`seed` to be an integer >= 0, got -1'),
        ({'imbalance': 2, 'num_samples': 0}, '`num_samples` to be an integer >= 1, got 0'),
        ({'imbalance': 2, 'num_samples': 50}, 'at most the 10 items of class 0, got 50, .*lower `num_s'),
        ({'imbalance': 1000}, 'got 1000, which leaves none of class 1; lower `imbalance:`'),
        ({'imbalance': 1, 'num_samples': 2}, 'leaves none of class 2; .*raise `num_samples:`'),
        ({'imbalance': 1, 'dataset': 'digits'}, "`dataset` to be a map-style data set .* got 'digits'"),
        ({'imbalance': 1, 'dataset': {'key': 'Digits'}}, 'built by `!import_call`'),
        ({'imbalance': 1, 'dataset': None}, '`dataset` to be a map-style data set .* got None'),
        ({'imbalance': 1, 'dataset': Listed([])}, 'items of every class, got none of class any'),
        ({'imbalance': 1, 'dataset': Listed([0, 2])}, 'items of every class, got none of class 1'),
        ({'imbalance': 1, 'dataset': Listed([0, 2], ['a', 'b'])}, 'targets from 0 to 1, .* got 2'),
    ],
)
def test_long_tailed_refuses_bad_arguments(kwargs, message):
    with pytest.raises(TRGError, match=message):
        LongTailed(**{'dataset': listed([10] * 3), **kwargs})
