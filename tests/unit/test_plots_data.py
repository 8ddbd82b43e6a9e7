"""The images of the pictures, and what the t-SNE shows of them."""

import pytest
import torch
from torch.utils.data import Dataset, Subset
from torchvision.transforms import Compose, Normalize

from trg_torchdistill.cli.plot.images import Images, as_seen, draw_images, in_pairs, read_images
from trg_torchdistill.cli.plot.pictures import MARKERS, draw_embedding, embed
from trg_torchdistill.errors import TRGError


class Pictures(Dataset):
    """Image i is filled with i; class i // 4."""

    def __init__(self, size=100, transform=None):
        self.targets = [index // 4 for index in range(size)]
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = torch.full((3, 2, 2), float(index))
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def test_images_are_drawn_once_each_and_always_the_same():
    first, again = draw_images(Pictures(), 20, seed=1), draw_images(Pictures(), 20, seed=1)
    positions = [int(image[0, 0, 0]) for image in first.values]
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, draw_images(Pictures(), 20, seed=2).values)
    assert len(set(positions)) == 20
    assert first.labels == [position // 4 for position in positions]


@pytest.mark.parametrize(('listed', 'last'), [(True, 9), (False, 24)])
def test_images_are_of_ten_classes_where_the_data_set_lists_its_labels(listed, last):
    pictures = Pictures()
    whole, part = (pictures, Subset(pictures, range(100))) if listed else ([*pictures], Subset([*pictures], range(100)))
    for dataset in (whole, part):
        assert max(draw_images(dataset, 100, seed=0).labels) == last


def test_names_of_classes_are_those_of_the_data_set_inside():
    pictures = Pictures()
    pictures.classes = [('tench', 'Tinca'), 'shark']
    assert read_images(Subset(pictures, [0, 4, 8]), [0, 1, 2]).names == ['tench', 'shark', '2']


def test_pairs_of_a_class_come_first():
    assert in_pairs([3, 5, 3, 7, 5, 3], 6) == [0, 2, 1, 4, 3, 5]
    assert in_pairs([1, 2], 8) == [0, 1]
    images = read_images(Pictures(), range(12)).take([9, 2])
    assert (images.values[:, 0, 0, 0].tolist(), images.labels) == ([9, 2], [2, 0])


def test_wrong_positions_and_items_are_explained():
    with pytest.raises(TRGError, match='positions in the data set, from 0 to 99, got 100'):
        read_images(Pictures(), [0, 100])
    with pytest.raises(TRGError, match='did not give image tensors of one size, with labels, TypeError'):
        read_images(Pictures(transform=str), [0])


def test_images_are_shown_as_they_were_before_their_normalization():
    dataset = Pictures(transform=Compose([torch.nn.Identity(), Compose([Normalize([0.5, 0, 0], [0.1, 1, 2])])]))
    original = torch.rand(4, 3, 2, 2)
    normalized = torch.stack([dataset.transform(image) for image in original])
    for source in (dataset, Subset(dataset, [0])):
        assert torch.allclose(as_seen(normalized, source), original.permute(0, 2, 3, 1), atol=1e-6)
    stretched = as_seen(3 * original - 1, Pictures())
    assert (stretched.min(), stretched.max()) == (0, 1)
    assert as_seen(torch.rand(4, 1, 2, 5), Pictures()).shape == (4, 2, 5)
    assert as_seen(torch.ones(4, 1, 2, 5), Pictures()).isfinite().all()


def test_an_embedding_is_repeatable_and_has_a_marker_for_each_class():
    labels = [index % 12 for index in range(36)]
    images = Images(torch.zeros(36, 3, 2, 2), labels, [f'c{label}' for label in range(12)])
    features = torch.randn(36, 8)
    points = embed(features, seed=0)
    assert (points == embed(features, seed=0)).all()
    figure = draw_embedding({'student': points}, {'student': 'student\n(net)'}, images)
    assert figure.axes[0].get_title() == 'student (net)'
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f'c{label}' for label in range(10)]
    drawn = figure.axes[0].collections
    assert (drawn[3].get_offsets() == points[3::12]).all()
    looks = {(str(part.get_facecolor()), str(part.get_paths()[0].vertices)) for part in drawn}
    assert len(looks) == len(drawn) == len(MARKERS) == 10
    with pytest.raises(TRGError, match='at least 4 images for the t-SNE, got 3; raise `--samples`'):
        embed(features[:3], seed=0)
