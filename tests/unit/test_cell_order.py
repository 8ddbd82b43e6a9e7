"""Tokens that are not in the rows of the image are found in models of every usual order."""

import pytest
import torch
from torch import nn
from torchvision import models

from trg_torchdistill.cli.probe.cell_order import PLACES, changed_images
from trg_torchdistill.cli.probe.layers import alternatives, choose_layer
from trg_torchdistill.cli.probe.probe import run_model
from trg_torchdistill.errors import TRGError


def rows(grid):
    return grid.flatten(1, 2)


def columns(grid):
    return rows(grid.transpose(1, 2))


def mirrored(grid):
    return rows(grid.flip(2))


def windows(grid, side=2):
    return rows(_split(grid, side).flatten(1, 2).flatten(2, 3))


def dilated_windows(grid):
    batch, height, width, channels = grid.shape
    parts = grid.view(batch, 2, height // 2, 2, width // 2, channels)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 4)


def windows_apart(grid):
    """[B, windows, cells of one, C], as torchvision's MaxVit has them: four dimensions, like a map."""
    return _split(grid, 2).flatten(1, 2).flatten(2, 3)


def mask_units(grid):
    """Units of 4 x 4 cells, and in each of them units of 2 x 2."""
    units = _split(grid, 4).flatten(0, 2)
    return _split(units, 2).flatten(1, 4).view(len(grid), -1, grid.shape[-1])


def _split(grid, side):
    """[B, H / side, W / side, side, side, C]."""
    batch, height, width, channels = grid.shape
    return grid.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)


class Ordered(nn.Module):
    """Patches, put in an order, through two blocks of one layer each, with attention over all tokens if asked for."""

    def __init__(self, order, attends=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2)))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True) if attends else None
        self.fc = nn.Linear(16, 5)
        self.order = order

    def forward(self, images):
        tokens = self.order(self.patches(images).permute(0, 2, 3, 1))
        if self.attention is not None:
            tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.fc(self.blocks(tokens).flatten(1, -2).mean(1))


def in_order(model, size):
    torch.manual_seed(0)
    found = run_model('net', model, (size, size))
    return found, {record.path: record.is_in_order for record in found.records if record.runs}


@pytest.mark.parametrize('size', [32, 64])
@pytest.mark.parametrize('attends', [False, True])
@pytest.mark.parametrize('order', [columns, mirrored, windows, dilated_windows, mask_units])
def test_tokens_in_another_order_have_no_layout(order, attends, size):
    found, ordered = in_order(Ordered(order, attends), size)
    assert ordered == {path: path == 'patches' or path == 'fc' or 'attention' in path for path in ordered}
    assert found.record('blocks.1').grid is found.record('blocks.1').layout is None
    assert choose_layer(found, 'student').path == 'patches'
    assert alternatives(found, found.record('patches')) == []
    with pytest.raises(
        TRGError, match=r"whose tokens stand in the rows of the image, got 'blocks.1', where they are in w"
    ):
        choose_layer(found, 'student', 'blocks.1')


@pytest.mark.parametrize('attends', [False, True])
def test_tokens_in_rows_keep_their_grid(attends):
    found, ordered = in_order(Ordered(rows, attends), 64)
    assert all(ordered.values())
    assert choose_layer(found, 'student').path == 'blocks'
    assert found.record('blocks').grid == (16, 16)


@pytest.mark.parametrize('size', [32, 64])
def test_windows_in_four_dimensions_are_no_map(size):
    found, ordered = in_order(Ordered(windows_apart), size)
    assert not ordered['blocks']
    assert choose_layer(found, 'student').path == 'patches'


def test_windows_of_a_real_maxvit_are_left_out_and_its_maps_are_not():
    model = models.MaxVit((64, 64), 8, 4, [24, 40], [1, 1], 8, 0.0, num_classes=5)
    found, ordered = in_order(model, 64)
    block = 'blocks.0.layers.0.layers'
    assert all(ordered[path] for path in ('blocks.0', f'{block}.MBconv', f'{block}.grid_attention'))
    assert not ordered[f'{block}.grid_attention.mlp_layer']
    assert choose_layer(found, 'teacher').path == 'blocks.1'


@pytest.mark.slow
def test_mask_units_of_a_real_hiera_are_left_out():
    timm = pytest.importorskip('timm', reason="timm is not installed; pip install 'trg_torchdistill[hub]'")
    found, ordered = in_order(timm.create_model('hiera_tiny_224', num_classes=5), 224)
    blocks = [ordered[f'blocks.{number}'] for number in range(12)]
    assert blocks == 10 * [False] + 2 * [True]  # in the last stage each unit is one token
    chosen = choose_layer(found, 'teacher')
    assert (chosen.path, chosen.grid) == ('blocks.11', (7, 7))
    assert {record.path for record in alternatives(found, chosen)} <= {'blocks.10', 'patch_embed'}


@pytest.mark.slow
def test_cells_of_a_real_deit_stay():
    timm = pytest.importorskip('timm', reason="timm is not installed; pip install 'trg_torchdistill[hub]'")
    _, ordered = in_order(timm.create_model('deit_tiny_patch16_224', num_classes=5), 224)
    assert all(ordered[path] for path in ('patch_embed', *(f'blocks.{number}' for number in range(12))))
    assert not ordered['blocks.3.attn.q_norm']  # [B, heads, tokens, features] is no map


def test_an_image_is_changed_at_one_place_at_a_time():
    images = changed_images((3, 32, 64))
    changed = (images[1:] != images[:1]).all(1)
    assert images.shape == (4, 3, 32, 64)
    assert [(round(place[0] * 32), round(place[1] * 64)) for place in PLACES] == [(14, 13), (26, 26), (8, 51)]
    assert all(mask[round(place[0] * 32), round(place[1] * 64)] for mask, place in zip(changed, PLACES, strict=True))
    assert (changed.sum(0) <= 1).all()
    assert changed.flatten(1).sum(1).max() <= 3 * 5
