"""ImageNet-LT from a made-up list with real JPEG files."""

import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from trg_torchdistill.cli.measure.evaluation import unbalanced_counts
from trg_torchdistill.datasets import ImageNetLT
from trg_torchdistill.errors import TRGError

COUNTS = {'n01440764': 4, 'n01443537': 2, 'n01484850': 1}
SIZE = (12, 10)


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """A folder like ImageNet's with one brightness a class; one image is gray, as some of ImageNet are."""
    root = tmp_path_factory.mktemp('imagenet')
    lines = []
    for label, (folder, count) in enumerate(COUNTS.items()):
        (root / 'train' / folder).mkdir(parents=True)
        for index in range(count):
            name = f'train/{folder}/{folder}_{index}.JPEG'
            gray = (label, index) == (0, 1)
            Image.new('L' if gray else 'RGB', SIZE, 80 * label if gray else (80 * label,) * 3).save(root / name)
            lines.append(f'{name} {label}')
    (root / 'ImageNet_LT_train.txt').write_text('\n'.join(reversed(lines)) + '\n')
    return root


def listed(imagenet, *lines):
    file = imagenet / 'other.txt'
    file.write_text('\n'.join(lines) + '\n')
    return str(file)


def build(imagenet, **kwargs):
    given = {'root': str(imagenet), 'list_file': str(imagenet / 'ImageNet_LT_train.txt'), 'num_classes': 3}
    return ImageNetLT(**{**given, **kwargs})


def test_it_reads_the_list_and_the_images(imagenet):
    dataset = build(imagenet)
    assert len(dataset) == 7
    assert dataset.targets == [2, 1, 1, 0, 0, 0, 0]
    assert dataset.class_counts == unbalanced_counts(dataset) == [4, 2, 1]  # as the trainer groups them
    assert dataset.classes == list(COUNTS)
    for index, target in enumerate(dataset.targets):
        image, label = dataset[index]
        assert (image.mode, image.size, label) == ('RGB', SIZE, target)
        assert image.getpixel((3, 3)) == pytest.approx((80 * target,) * 3, abs=2)


def test_it_is_transformed_copied_and_loaded_in_workers(imagenet):
    dataset = pickle.loads(pickle.dumps(build(imagenet, transform=ToTensor())))
    images, labels = next(iter(DataLoader(dataset, batch_size=7, num_workers=1)))
    assert images.shape == (7, 3, *reversed(SIZE))
    assert labels.tolist() == dataset.targets
    assert torch.allclose(images.mean(dim=(1, 2, 3)) * 255, 80.0 * labels, atol=2)


def test_empty_lines_are_skipped(imagenet):
    list_file = listed(imagenet, 'train/n01440764/n01440764_0.JPEG 0', '', '  ')
    assert build(imagenet, list_file=list_file, num_classes=1).class_counts == [1]


GOOD = 'train/n01440764/n01440764_0.JPEG 0'


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('train/n01440764/n01440764_9.JPEG 0', r'image \S+n01440764_9.JPEG of \S+, line 2, .*`root:`'),
        ('train/n01443537/n01443537_0.JPEG 3', r"from 0 to 2, got 'train/.* 3' in \S+other.txt, line 2"),
        ('train/n01443537/n01443537_0.JPEG -1', 'from 0 to 2, got .* -1.* line 2'),
        ('train/n01443537/n01443537_0.JPEG one', 'got .*JPEG one.* line 2'),
        ('train/n01443537/n01443537_0.JPEG', "'FILE LABEL' .* line 2"),
        ('1', "'FILE LABEL' .* line 2"),
        ('train/n01440764/n01440764_1.JPEG 1', 'folder n01440764 to go with label 0, .* line 2'),
        ('train/n01443537/n01443537_0.JPEG 0', 'folder n01440764 to go with label 0, .* line 2'),
        ('train/n01443537/n01443537_0.JPEG 1', 'images of 3 classes, got none of class 2'),
    ],
)
def test_a_bad_line_is_named(imagenet, line, message):
    with pytest.raises(TRGError, match=message):
        build(imagenet, list_file=listed(imagenet, GOOD, line))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'root': None}, '`root` to be a non-empty string, got None; .*ImageNetLT'),
        ({'list_file': 7}, '`list_file` to be a non-empty string, got 7'),
        ({'list_file': 'no/such.txt'}, 'got no/such.txt, which does not exist'),
        ({'num_classes': 0}, '`num_classes` to be an integer >= 1, got 0'),
        ({'num_classes': 4}, 'none of class 3; change `num_classes:`'),
        ({'transform': 'flip'}, "`transform` to be a function of an image or null, got 'flip'"),
        ({'root': '/no/such'}, r'image /no/such/train/\S+ of \S+, line 1,'),
    ],
)
def test_it_refuses_bad_arguments(imagenet, kwargs, message):
    with pytest.raises(TRGError, match=message):
        build(imagenet, **kwargs)
