"""Random data in place of the data sets, the batch size, and the size of graphs and maps."""

import pytest
import torch
from torch import nn
from torchdistill.core.distillation import DistillationBox
from torchdistill.datasets.wrapper import CRDDatasetWrapper, SSKDDatasetWrapper

from trg_torchdistill.cli.check.batch import check_maps
from trg_torchdistill.cli.check.setup import RandomImages, batch_size_of, restored_host
from trg_torchdistill.cli.probe.probe import run_model
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.losses.graph_facts import graph_bytes
from trg_torchdistill.losses.maps import map_bytes


def config_of(train):
    return Config(None, '', {'train': train})


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


def test_the_batch_size_is_the_yamls():
    loader = {'kwargs': {'batch_size': 7}}
    assert batch_size_of(config_of({'train_data_loader': loader}), ('train',)) == 7
    sampled = {'kwargs': {}, 'batch_sampler': {'kwargs': {'batch_size': 5}}}
    assert batch_size_of(config_of({'train_data_loader': sampled}), ('train',)) == 5
    stages = config_of({'stage1': {'train_data_loader': loader}, 'stage2': {}})
    assert batch_size_of(stages, ('train', 'stage2')) == 7
    assert batch_size_of(config_of({'train_data_loader': {'kwargs': {}}}), ('train',)) == 1


def test_graph_memory_is_edges_and_one_block_of_scores():
    assert graph_bytes(100, 8, 5) == 100 * (8 * 90 + 8 * 5 * 4 + 100 * 4)
    assert graph_bytes(10_000, 8, 512) == 10_000 * 8 * 90 + 2 * 64 * 2**20
    assert graph_bytes(4, 8, 5) == 4 * (3 * 90 + 3 * 5 * 4 + 4 * 4)
    assert graph_bytes(1, 8, 5) == 4


def test_map_memory_is_that_of_one_block():
    assert map_bytes(4, 10) == 2 * 4 * 100 * 4
    assert map_bytes(1000, 1000) == 2 * 64 * 2**20
    assert map_bytes(1000, 10_000) == 2 * 4 * 10_000**2


def contextual(path, **options):
    ends = {'student_module_io': 'output', 'teacher_module_path': 'layer', 'teacher_module_io': 'output'}
    kwargs = {'student_module_path': path, **ends, **options}
    term = {'criterion': {'key': 'TokenContextualLoss', 'kwargs': kwargs}, 'weight': 1.0}
    return config_of({'criterion': {'kwargs': {'sub_terms': {'context': term}}}})


def test_context_maps_that_do_not_fit_are_known_before_anything_runs():
    probes = {'student': run_model('net', nn.Sequential(nn.Conv2d(3, 1, 1), nn.AvgPool2d(16)), (128, 128))}
    assert check_maps(contextual('1'), ('train',), probes, 32) == 32
    assert check_maps(contextual('student_model.0', student_tokens={'patch_size': 2}), ('train',), probes, 32) == 2
    with pytest.raises(
        UnknownHereError, match='`context` has 16384 x 16384 numbers an image, about 8 GiB each; choose later'
    ):
        check_maps(contextual('0'), ('train',), probes, 32)
    assert check_maps(config_of({'criterion': {}}), ('train',), probes, 32) == 32


def test_the_hosts_classes_are_restored():
    before = dict(vars(DistillationBox))
    with restored_host():
        DistillationBox.pre_epoch_process = 1
        DistillationBox.new = 2
    assert dict(vars(DistillationBox)) == before
