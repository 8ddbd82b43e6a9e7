"""Random data in place of the data sets, the batch size, and the memory of graphs and maps."""

import pytest
import torch
from torchdistill.datasets.wrapper import CRDDatasetWrapper, SSKDDatasetWrapper

from trg_torchdistill.cli.check.setup import batch_size_of
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.image_classification import RandomImages
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.losses.graph_facts import graph_bytes
from trg_torchdistill.losses.maps import map_bytes

LOADER = {'kwargs': {'batch_size': 7}}


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_random_images_have_the_shape_of_the_models_and_differ(channels):
    data = RandomImages(4, (channels, 6, 8), 3)
    images = torch.stack([data[index][0] for index in range(4)])
    assert images.shape == (4, channels, 6, 8)
    assert (images[0] - images[1]).abs().mean() > 0.1
    assert images.abs().max() <= 2
    assert {data[index][1] for index in range(4)} <= {0, 1, 2}
    assert torch.equal(data[0][0], RandomImages(4, (channels, 6, 8), 3)[0][0])


def test_the_hosts_data_set_wrappers_take_them():
    sample, _, _ = SSKDDatasetWrapper(RandomImages(4, (3, 8, 8), 3))[0]
    assert sample.shape == (4, 3, 8, 8)
    _, _, supplement = CRDDatasetWrapper(RandomImages(8, (3, 8, 8), 3), 16, 'exact', 1.0)[0]
    assert len(supplement['contrast_idx']) == 17


@pytest.mark.parametrize(
    ('train', 'stage', 'size'),
    [
        ({'train_data_loader': LOADER}, (), 7),
        ({'train_data_loader': {'kwargs': {}, 'batch_sampler': {'kwargs': {'batch_size': 5}}}}, (), 5),
        ({'stage1': {'train_data_loader': LOADER}, 'stage2': {}}, ('stage2',), 7),
        ({'train_data_loader': {'kwargs': {}}}, (), 1),
    ],
)
def test_the_batch_size_is_the_yamls(train, stage, size):
    assert batch_size_of(Config(None, '', {'train': train}), ('train', *stage)) == size


def test_graph_memory_is_pairs_and_one_block_of_scores():
    teacher, own, complete = LocalTerm(edges='teacher'), LocalTerm(), LocalTerm(None)
    assert graph_bytes(100, teacher, 5) == 100 * (8 * 80 + 8 * 5 * 4 + 100 * 4)
    assert graph_bytes(100, own, 5) == 100 * (16 * 80 + 16 * 5 * 4 + 100 * 4)
    assert graph_bytes(10_000, teacher, 512) == 10_000 * 8 * 80 + 2 * 64 * 2**20
    assert graph_bytes(4, teacher, 5) == 4 * (3 * 80 + 3 * 5 * 4 + 4 * 4)
    assert graph_bytes(1, own, 5) == 4
    assert graph_bytes(100, complete, 5) == 16 * 100 * 100 * 4


def test_map_memory_is_that_of_one_block():
    assert map_bytes(4, 10) == 2 * 4 * 100 * 4
    assert map_bytes(1000, 1000) == 2 * 64 * 2**20
    assert map_bytes(1000, 10_000) == 2 * 4 * 10_000**2
