"""Images in memory: the batches of torchvision's transforms, and a training of the grid from them."""

import importlib
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

from trg_torchdistill.datasets import LongTailed

pytestmark = pytest.mark.slow

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
NORMALIZE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


@pytest.fixture
def arrays(grid):
    return importlib.import_module('arrays')


@pytest.fixture
def stored(arrays, data):
    return arrays.StoredImages(str(arrays.decode(data / 'train')))


def test_a_tree_is_decoded_once(arrays, data, stored):
    source = ImageFolder(str(data / 'train'), transforms.PILToTensor())
    assert (stored.classes, stored.targets, len(stored)) == (source.classes, source.targets, 80)
    assert all(torch.equal(stored[index][0], source[index][0]) for index in range(80))
    written = (data / 'train.pt').stat().st_mtime_ns
    arrays.decode(data / 'train')
    assert (data / 'train.pt').stat().st_mtime_ns == written
    assert not (data / 'train.tmp').exists()


def test_batches_are_those_of_torchvision(arrays, data, stored):
    source = ImageFolder(str(data / 'train'), NORMALIZE)
    images, labels = arrays.Batches(stored, MEAN, STD)[[70, 3, 3]]
    torch.testing.assert_close(images, torch.stack([source[index][0] for index in (70, 3, 3)]))
    assert labels.tolist() == [source.targets[index] for index in (70, 3, 3)]


def test_augmented_images_are_the_crops_and_mirrored_crops_of_torchvision(arrays, stored):
    """2,000 draws of one image: all 9 x 9 places and both sides, about equally often."""
    batches = arrays.Batches(stored, [0.0] * 3, [1.0] * 3, padding=4)
    images, _ = batches[[5] * 2000]
    padded = transforms.functional.pad(stored[5][0], [4] * 4).float() / 255
    possible = [padded[:, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    possible = torch.stack([*possible, *(image.flip(2) for image in possible)]).flatten(1)
    distances = torch.cdist(images.flatten(1), possible, compute_mode='donot_use_mm_for_euclid_dist')
    assert (distances.min(1).values < 1e-3).all()
    counts = torch.bincount(distances.argmin(1), minlength=162)
    assert counts.min() >= 1
    assert counts.max() < 35
    assert 900 < counts[:81].sum() < 1100


def test_a_long_tailed_selection_keeps_its_classes(arrays, stored):
    selection = LongTailed(stored, imbalance=4)
    batches = arrays.Batches(selection, MEAN, STD)
    assert batches.class_counts == selection.class_counts
    assert batches.targets == selection.targets
    assert batches.classes == stored.classes


def test_samplers_give_batches(arrays, stored):
    in_order = list(arrays.in_order(stored, 30))
    assert [len(batch) for batch in in_order] == [30, 30, 20]
    assert [*chain(*in_order)] == list(range(80))
    shuffled = list(arrays.shuffled(stored, 30))
    assert [len(batch) for batch in shuffled] == [30, 30]
    drawn = [*chain(*shuffled)]
    assert len(set(drawn)) == 60
    assert drawn != sorted(drawn)


def test_a_recipe_in_memory_trains_a_method_with_its_own_candidates(grid, run_stage, monkeypatch):
    recipe = grid.RECIPES['resnet56_resnet20']
    small = replace(recipe, epochs=1, teacher_cycles=((1, 0.1),), batch_size=8)
    monkeypatch.setitem(grid.RECIPES, 'resnet56_resnet20', small)
    monkeypatch.setitem(grid.METHODS, 'kd', replace(grid.METHODS['kd'], candidates=((0.1, 4.0),)))
    for stage in ('teacher', 'tune', 'run'):
        code, notes = run_stage(stage, ['kd', 'kd+trg'], '--recipe', 'resnet56_resnet20')
        assert code == 0
    tuned = {tuple(note['weights']) for note in notes if (note['stage'], note['method']) == ('tune', 'kd+trg')}
    assert {(0.3, 0.1), (0.3, 0.3), (1.0, 0.3)} <= tuned <= {(0.3, 0.1), (0.3, 0.3), (1.0, 0.3), (0.1, 0.1), (1.0, 1.0)}
    assert [note['stage'] for note in notes] == ['teacher', *['tune'] * (1 + len(tuned)), 'run', 'run']
    assert all(set(note['groups']) == {'many', 'medium', 'few'} for note in notes if note['stage'] == 'run')
