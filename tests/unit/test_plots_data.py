"""What the curves and the t-SNE show: runs, labels and images."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, Subset
from torchvision.transforms import Compose, Normalize

from trg_torchdistill.cli.plot.command import _labels
from trg_torchdistill.cli.plot.curves import draw_curves, panels_of, read_runs
from trg_torchdistill.cli.plot.embedding import MARKERS, draw_embedding, embed
from trg_torchdistill.cli.plot.figures import STYLES, style_of
from trg_torchdistill.cli.plot.images import Images, as_seen, draw_images, in_pairs, read_images
from trg_torchdistill.cli.plot.models import Model
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


def line(**values):
    return {'val_top1': 50.0, 'loss': 1.0, 'terms': {}, **values}


def test_panels_have_a_line_for_each_run_and_parts():
    runs = {
        'KD': [line(terms={'kd': 1.0}, lr=0.1), line(terms={'kd': 0.5}, lr=0.2)],
        'TRG': [line(terms={'kd': 2.0, 'trg': 5.0, 'trg.local': 3.0}, temperature={'a': 0.5, 'b': 0.4}, lr=[0.1, 0.2])],
    }
    panels = panels_of(runs)
    assert list(panels) == [
        'validation top-1, %',
        'training loss',
        'term: kd',
        'term: trg local',
        'temperature',
        'learning rate',
    ]
    assert panels['term: kd'] == {'KD': [[1.0, 0.5]], 'TRG': [[2.0]]}
    assert panels['term: trg local'] == {'KD': [], 'TRG': [[3.0]]}
    assert panels['temperature'] == {'KD': [], 'TRG': [[0.5], [0.4]]}
    assert panels['learning rate'] == {'KD': [[0.1, 0.2]], 'TRG': [[0.1], [0.2]]}
    figure = draw_curves(runs)
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_ylabel() for axes in drawn] == list(panels)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['KD', 'TRG']
    assert drawn[0].lines[1].get_color() == drawn[3].lines[0].get_color() == STYLES[1][0]


def test_many_runs_differ_in_colour_or_dashes():
    styles = [style_of(position) for position in range(len(STYLES) ** 2)]
    assert len({str(style) for style in styles}) == len(styles)
    assert styles[: len(STYLES)] == list(STYLES)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'with a metrics.jsonl, got none there; name what'),
        ('', 'to hold a finished epoch, got none yet'),
        ('{"epoch": 0', 'to be JSON, got: .* remove the damaged line'),
        ('{"loss": 1.0}\n', 'line 1 of .* got one without val_top1, terms'),
        ('[]\n', 'line 1 of .* got one without val_top1, loss, terms'),
    ],
)
def test_a_folder_without_a_readable_run(text, message, tmp_path):
    if text is not None:
        (tmp_path / 'metrics.jsonl').write_text(text)
    with pytest.raises(TRGError, match=message):
        read_runs([tmp_path], ['run'])


def test_a_run_is_read(tmp_path):
    epochs = [line(loss=float(number)) for number in range(3)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(epoch) + '\n' for epoch in epochs))
    assert read_runs([tmp_path], ['run']) == {'run': epochs}


def test_labels_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path):
    folders = [tmp_path / 'trg-0.1', tmp_path / 'trg-0.3']
    for folder in folders:
        folder.mkdir()
    assert _labels(None, folders, 'folders') == ['trg-0.1', 'trg-0.3']
    assert _labels(None, [Path('/x/kd.pt'), Path('/x/trg.pt')], 'files') == ['kd', 'trg']
    assert _labels(None, [Path('/x/kd/r.pt'), Path('/x/trg/r.pt')], 'files') == ['kd/r', 'trg/r']
    assert _labels(['a', 'b'], [Path('x'), Path('y')], 'files') == ['a', 'b']
    for wrong in (['a'], ['a', 'a']):
        with pytest.raises(TRGError, match='expected `--labels` to be 2 different names, one for each of the files'):
            _labels(wrong, [Path('x'), Path('y')], 'files')
    with pytest.raises(TRGError, match='got one of them twice'):
        _labels(None, [Path('x'), Path('./x')], 'files')


def test_images_are_drawn_from_ten_classes_and_always_the_same():
    first, again = draw_images(Pictures(), 20, seed=1), draw_images(Pictures(), 20, seed=1)
    assert first.positions == again.positions != draw_images(Pictures(), 20, seed=2).positions
    assert len(set(first.positions)) == 20
    assert max(first.labels) < 10
    assert first.labels == [position // 4 for position in first.positions]
    assert torch.equal(first.values[:, 0, 0, 0], torch.tensor(first.positions, dtype=torch.float32))
    assert first.names[first.labels[0]] == str(first.labels[0])


@pytest.mark.parametrize(('listed', 'last'), [(True, 9), (False, 24)])
def test_images_are_of_ten_classes_where_the_data_set_lists_its_labels(listed, last):
    pictures = Pictures()
    whole, part = (pictures, Subset(pictures, range(100))) if listed else ([*pictures], Subset([*pictures], range(100)))
    for dataset in (whole, part):
        assert max(draw_images(dataset, 100, seed=0).labels) == last


def test_names_of_classes_are_those_of_the_data_set_inside():
    pictures = Pictures()
    pictures.classes = [('tench', 'Tinca'), 'shark']
    assert read_images(Subset(pictures, [0, 4, 8]), [0, 1, 2]).names == {0: 'tench', 1: 'shark', 2: '2'}


def test_pairs_of_a_class_come_first():
    assert in_pairs([3, 5, 3, 7, 5, 3], 6) == [0, 2, 1, 4, 3, 5]
    assert in_pairs([1, 2], 8) == [0, 1]


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
    images = Images(torch.zeros(36, 3, 2, 2), labels, list(range(36)), {label: f'c{label}' for label in labels})
    features = torch.randn(36, 8)
    points = embed(features, seed=0)
    assert (points == embed(features, seed=0)).all()
    figure = draw_embedding({'student': points}, [Model('student', 'net', torch.nn.Identity())], images)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f'c{label}' for label in range(10)]
    drawn = figure.axes[0].collections
    assert (drawn[3].get_offsets() == points[3::12]).all()
    looks = {(str(part.get_facecolor()), str(part.get_paths()[0].vertices)) for part in drawn}
    assert len(looks) == len(drawn) == len(MARKERS) == 10
    with pytest.raises(TRGError, match='at least 4 images for the t-SNE, got 3; raise `--samples`'):
        embed(features[:3], seed=0)
