"""Class-balanced sampling, as a YAML names it and torchdistill's data loader builds it."""

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset, WeightedRandomSampler
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.datasets.util import build_data_loader

from trg_torchdistill.datasets import class_balanced_sampler
from trg_torchdistill.errors import TRGError

YAML = """
sampler:
  class_or_func: !import_get {key: 'trg_torchdistill.datasets.class_balanced_sampler'}
  kwargs: {num_samples: 3000}
kwargs: {batch_size: 100, num_workers: 0}
"""


@pytest.fixture
def dataset():
    """90 items of class 0, 9 of class 1, 1 of class 2."""
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([90, 9, 1]))
    dataset = TensorDataset(torch.arange(100.0), targets)
    dataset.targets = targets.tolist()
    return dataset


def test_a_loader_of_torchdistill_draws_every_class_equally_often(dataset, tmp_path):
    path = tmp_path / 'loader.yaml'
    path.write_text(YAML)
    loader = build_data_loader(dataset, load_yaml_file(str(path)), distributed=False)
    drawn = torch.cat([targets for _, targets in loader])
    assert len(drawn) == 3000
    assert torch.bincount(drawn).tolist() == pytest.approx([1000] * 3, rel=0.1)


def test_an_epoch_has_as_many_items_as_the_data_set(dataset):
    sampler = class_balanced_sampler(dataset)
    assert isinstance(sampler, WeightedRandomSampler)
    assert len(list(sampler)) == 100


@pytest.mark.parametrize(
    'select',
    [
        lambda dataset: Subset(dataset, [0, 1, 90]),
        lambda dataset: Subset([*dataset], [0, 1, 90]),  # a list names no targets: its items are read
        lambda dataset: ConcatDataset([Subset(dataset, [0, 1]), Subset(dataset, [90])]),
    ],
)
def test_a_selection_has_its_own_classes(dataset, select):
    assert class_balanced_sampler(select(dataset)).weights.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize('value', [0, '5'])
def test_a_wrong_number_of_samples_names_the_line(dataset, value):
    with pytest.raises(TRGError, match=r'expected `num_samples` .* under the `kwargs:` of the sampler'):
        class_balanced_sampler(dataset, value)
