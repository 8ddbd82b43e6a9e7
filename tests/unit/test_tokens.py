"""Feature maps and sequences to tokens: layouts, patches, pooling, drawing, normalising."""

import dataclasses

import pytest
import reference
import torch
import torch.nn.functional as F
from helpers import assert_all_finite, assert_close

from trg_torchdistill.tokens import Tokenizer, draw_cells, flatten_grid, normalize, pool_to_common_grid, take_cells


def _features(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


GRIDS = {
    'cnn': ((2, 3, 4, 6), {'layout': 'bchw'}),
    'cnn auto': ((2, 3, 4, 6), {}),
    'cnn patch 2': ((2, 3, 4, 6), {'layout': 'bchw', 'patch_size': 2}),
    'cnn auto patch 2': ((2, 3, 4, 6), {'patch_size': 2}),
    'one patch': ((2, 3, 4, 4), {'patch_size': 4}),
    'swin': ((2, 4, 6, 3), {'layout': 'bhwc'}),
    'swin patch 2': ((2, 4, 6, 3), {'layout': 'bhwc', 'patch_size': 2}),
    'vit': ((2, 9, 5), {'layout': 'bnd'}),
    'vit auto, class token': ((2, 10, 5), {'num_prefix_tokens': 1}),
    'vit, registers, flat grid': ((2, 11, 5), {'layout': 'bnd', 'num_prefix_tokens': 5, 'grid_size': [2, 3]}),
    'vit, grid only': ((2, 6, 5), {'layout': 'bnd', 'grid_size': (3, 2)}),
    'vit, one token': ((2, 1, 5), {'layout': 'bnd'}),
    'text': ((2, 7, 5), {'layout': 'bld'}),
    'text, class token': ((2, 7, 5), {'layout': 'bld', 'num_prefix_tokens': 1}),
    'text, one token': ((2, 1, 5), {'layout': 'bld'}),
    'vector': ((2, 5), {'layout': 'bd'}),
    'vector auto': ((2, 5), {}),
}


@pytest.mark.parametrize(('shape', 'options'), GRIDS.values(), ids=GRIDS)
def test_token_grid_is_the_reference_grid(shape, options):
    feature = _features(*shape)
    layout = {'layout': {4: 'bchw', 3: 'bnd', 2: 'bd'}[len(shape)]} | options
    grid = Tokenizer(**options)(feature)
    assert grid.dtype == feature.dtype
    assert_close(grid, reference.token_grid(feature, **layout), rtol=0, atol=0)


def test_patches_list_their_features_like_unfold():
    feature = _features(2, 3, 4, 6)
    unfolded = F.unfold(feature, kernel_size=2, stride=2).reshape(2, 12, 2, 3)
    assert_close(Tokenizer(patch_size=2)(feature), unfolded, rtol=0, atol=0)


@pytest.mark.parametrize(('shape', 'options'), GRIDS.values(), ids=GRIDS)
def test_non_contiguous_features_give_the_same_tokens(shape, options):
    feature = _features(*shape)
    strided = torch.stack([feature, feature], dim=-1).movedim(-1, 0).flip(0)[0].transpose(0, -1)
    strided = strided.contiguous().transpose(0, -1)
    tokenizer = Tokenizer(**options)
    assert_close(tokenizer(strided), tokenizer(feature), rtol=0, atol=0)
    if len(shape) == 4:
        channels_last = feature.contiguous(memory_format=torch.channels_last)
        assert_close(tokenizer(channels_last), tokenizer(feature), rtol=0, atol=0)


@pytest.mark.parametrize(('shape', 'options'), GRIDS.values(), ids=GRIDS)
def test_gradient_reaches_every_cell_but_the_prefix(shape, options):
    feature = _features(*shape).requires_grad_()
    Tokenizer(**options)(feature).sum().backward()
    expected = torch.ones(shape)
    expected[:, : options.get('num_prefix_tokens', 0)] = 0
    assert_close(feature.grad, expected, rtol=0, atol=0)


def test_a_tokenizer_is_frozen_and_built_from_yaml_values():
    tokenizer = Tokenizer(layout='bnd', patch_size=1, num_prefix_tokens=1, grid_size=[2, 3])
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokenizer.patch_size = 2
    assert Tokenizer() == Tokenizer(layout='auto', patch_size=1, num_prefix_tokens=0, grid_size=None)


BAD_OPTIONS = {
    'unknown layout': ({'layout': 'nchw'}, ValueError, 'layout'),
    'layout of a wrong type': ({'layout': 4}, (ValueError, TypeError), 'layout'),
    'zero patch': ({'patch_size': 0}, ValueError, 'patch_size'),
    'negative patch': ({'patch_size': -2}, ValueError, 'patch_size'),
    'fractional patch': ({'patch_size': 1.5}, TypeError, 'patch_size'),
    'text patch': ({'patch_size': '2'}, TypeError, 'patch_size'),
    'negative prefix': ({'layout': 'bnd', 'num_prefix_tokens': -1}, ValueError, 'num_prefix_tokens'),
    'fractional prefix': ({'layout': 'bnd', 'num_prefix_tokens': 1.0}, TypeError, 'num_prefix_tokens'),
    'prefix on a map': ({'layout': 'bchw', 'num_prefix_tokens': 1}, ValueError, 'num_prefix_tokens'),
    'prefix on swin': ({'layout': 'bhwc', 'num_prefix_tokens': 1}, ValueError, 'num_prefix_tokens'),
    'prefix on a vector': ({'layout': 'bd', 'num_prefix_tokens': 1}, ValueError, 'num_prefix_tokens'),
    'grid of three': ({'layout': 'bnd', 'grid_size': [2, 3, 4]}, (ValueError, TypeError), 'grid_size'),
    'grid of zero': ({'layout': 'bnd', 'grid_size': [0, 3]}, ValueError, 'grid_size'),
    'grid of a number': ({'layout': 'bnd', 'grid_size': 7}, (ValueError, TypeError), 'grid_size'),
    'fractional grid': ({'layout': 'bnd', 'grid_size': [2.0, 3]}, (ValueError, TypeError), 'grid_size'),
    'grid on a map': ({'layout': 'bchw', 'grid_size': [2, 3]}, ValueError, 'grid_size'),
    'grid on a text': ({'layout': 'bld', 'grid_size': [1, 3]}, ValueError, 'grid_size'),
    'patches of a text': ({'layout': 'bld', 'patch_size': 2}, ValueError, 'patch_size'),
}


@pytest.mark.parametrize(('options', 'error', 'field'), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_fail_at_construction_and_name_the_field(options, error, field):
    with pytest.raises(error, match=rf'expected `\w*{field}.*, got'):
        Tokenizer(**options)


BAD_FEATURES = {
    'height not divisible': ((2, 3, 5, 4), {'patch_size': 2}),
    'width not divisible': ((2, 3, 4, 5), {'patch_size': 2}),
    'swin width not divisible': ((2, 4, 5, 3), {'layout': 'bhwc', 'patch_size': 2}),
    'map of three dimensions': ((2, 3, 4), {'layout': 'bchw'}),
    'sequence of four dimensions': ((2, 3, 4, 4), {'layout': 'bnd'}),
    'vector of three dimensions': ((2, 3, 4), {'layout': 'bd'}),
    'text of two dimensions': ((2, 3), {'layout': 'bld'}),
    'text of class tokens': ((2, 1, 3), {'layout': 'bld', 'num_prefix_tokens': 1}),
    'one dimension': ((4,), {}),
    'five dimensions': ((2, 3, 4, 4, 4), {}),
    'auto prefix on a map': ((2, 3, 4, 4), {'num_prefix_tokens': 1}),
    'auto grid on a map': ((2, 3, 4, 4), {'grid_size': [4, 4]}),
    'grid of another size': ((2, 9, 5), {'layout': 'bnd', 'grid_size': [2, 3]}),
    'all tokens are prefix': ((2, 3, 5), {'layout': 'bnd', 'num_prefix_tokens': 3}),
    'more prefix than tokens': ((2, 3, 5), {'layout': 'bnd', 'num_prefix_tokens': 4}),
    'not a square': ((2, 7, 5), {'layout': 'bnd'}),
}


@pytest.mark.parametrize(('shape', 'options'), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_a_feature_that_does_not_fit_is_an_error(shape, options):
    with pytest.raises(ValueError, match=r'(?s)expected .*, got'):
        Tokenizer(**options)(torch.zeros(shape))


@pytest.mark.parametrize(('num_tokens', 'options', 'prefix'), [(50, {}, 1), (198, {}, 2), (51, {'layout': 'bnd'}, 2)])
def test_a_sequence_that_is_no_square_suggests_the_prefix(num_tokens, options, prefix):
    with pytest.raises(ValueError, match=rf'num_prefix_tokens\D*{prefix}\b'):
        Tokenizer(**options)(torch.zeros(2, num_tokens, 4))


@pytest.mark.parametrize('feature', [None, [[1.0, 2.0]], (torch.zeros(2, 3, 4, 4),)])
def test_a_feature_that_is_no_tensor_is_a_type_error(feature):
    with pytest.raises(TypeError, match=r'expected .*, got'):
        Tokenizer()(feature)


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [
        ((4, 4), (4, 4)),
        ((4, 4), (2, 2)),
        ((2, 2), (4, 4)),
        ((7, 7), (4, 4)),
        ((7, 7), (3, 5)),
        ((6, 2), (4, 5)),
        ((5, 5), (1, 1)),
    ],
)
def test_unequal_grids_are_pooled_to_the_smaller_height_and_width(student, teacher):
    student, teacher = _features(2, 3, *student), _features(2, 5, *teacher)
    pooled = pool_to_common_grid(student, teacher)
    for actual, expected in zip(pooled, reference.common_grids(student, teacher), strict=True):
        assert_close(actual, expected)


def test_equal_grids_are_left_as_they_are():
    student, teacher = _features(2, 3, 4, 4), _features(2, 5, 4, 4)
    pooled_student, pooled_teacher = pool_to_common_grid(student, teacher)
    assert_close(pooled_student, student, rtol=0, atol=0)
    assert_close(pooled_teacher, teacher, rtol=0, atol=0)


def test_pooling_half_precision_averages_accurately():
    student, teacher = (_features(1, 2, 14, 14) + 100).half(), _features(1, 2, 2, 2).half()
    pooled, _ = pool_to_common_grid(student, teacher)
    assert_close(pooled, reference.average_pool(student.double(), 2, 2), rtol=torch.finfo(torch.half).eps)


def test_cells_are_flattened_row_by_row():
    grid = _features(2, 3, 2, 4)
    assert_close(flatten_grid(grid), reference.sequence(grid), rtol=0, atol=0)


@pytest.mark.parametrize(('num_cells', 'num_drawn'), [(9, 1), (9, 4), (9, 9), (1, 1)])
def test_drawn_cells_are_distinct_within_an_image(num_cells, num_drawn, generator):
    cells = draw_cells(6, num_cells, num_drawn, generator)
    assert cells.shape == (6, num_drawn)
    assert cells.dtype == torch.long
    for drawn in cells.tolist():
        assert len(set(drawn)) == num_drawn
        assert set(drawn) <= set(range(num_cells))


def test_every_cell_and_position_is_drawn_equally_often(generator):
    num_images, num_cells, num_drawn = 20000, 6, 3
    cells = draw_cells(num_images, num_cells, num_drawn, generator)
    counts = torch.stack([torch.bincount(column, minlength=num_cells) for column in cells.T])
    assert_close(counts / num_images, torch.full((num_drawn, num_cells), 1 / num_cells), rtol=0, atol=0.015)
    pairs = torch.bincount(cells[:, 0] * num_cells + cells[:, 1], minlength=num_cells**2).view(num_cells, num_cells)
    off_diagonal = (torch.ones(num_cells, num_cells) - torch.eye(num_cells)) / (num_cells * (num_cells - 1))
    assert_close(pairs / num_images, off_diagonal, rtol=0, atol=0.01)


def test_drawing_depends_on_the_generator_alone():
    before = torch.get_rng_state()
    first = draw_cells(8, 49, 5, torch.Generator().manual_seed(1))
    torch.rand(3)
    second = draw_cells(8, 49, 5, torch.Generator().manual_seed(1))
    other = draw_cells(8, 49, 5, torch.Generator().manual_seed(2))
    torch.set_rng_state(before)
    draw_cells(8, 49, 5, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len({tuple(sorted(drawn)) for drawn in first.tolist()}) > 1, 'every image got the same cells'


def test_the_generator_advances_between_draws(generator):
    assert not torch.equal(draw_cells(8, 49, 5, generator), draw_cells(8, 49, 5, generator))


def test_drawing_more_cells_than_there_are_never_repeats_one(generator):
    cells = draw_cells(2, 9, 12, generator)
    assert [sorted(drawn) for drawn in cells.tolist()] == [list(range(9))] * 2


@pytest.mark.parametrize('num_drawn', [1, 3, 9])
def test_of_the_cells_that_count_each_image_gives_as_many_or_all(num_drawn, generator):
    mask = torch.rand(6, 9, generator=generator) < 0.4
    mask[0], mask[1] = False, True
    for _ in range(20):
        places = draw_cells(6, 9, num_drawn, generator, mask=mask)
        images, cells = places // 9, places % 9
        assert images.tolist() == sorted(images.tolist())
        assert torch.bincount(images, minlength=6).equal(mask.sum(1).clamp(max=num_drawn))
        assert mask[images, cells].all()
        assert len(set(zip(images.tolist(), cells.tolist(), strict=True))) == len(images)


@pytest.mark.parametrize('num_drawn', [4, 9])
def test_where_all_cells_count_the_same_are_drawn(num_drawn):
    plain = draw_cells(3, 9, num_drawn, torch.Generator().manual_seed(1))
    masked = draw_cells(3, 9, num_drawn, torch.Generator().manual_seed(1), mask=torch.ones(3, 9, dtype=torch.bool))
    tokens = _features(3, 9, 4)
    assert torch.equal(take_cells(tokens, plain), take_cells(tokens, masked))


def test_taken_cells_are_listed_image_after_image_and_carry_the_gradient(generator):
    tokens = _features(3, 9, 4).requires_grad_()
    cells = draw_cells(3, 9, 4, generator)
    taken = take_cells(tokens, cells)
    assert_close(taken, reference.graph_tokens(tokens, cells), rtol=0, atol=0)
    taken.sum().backward()
    expected = torch.zeros(3, 9, 4)
    for image, drawn in enumerate(cells.tolist()):
        expected[image, drawn] = 1
    assert_close(tokens.grad, expected, rtol=0, atol=0)


def test_taken_cells_of_a_non_contiguous_sequence(generator):
    tokens = _features(4, 9, 3).transpose(0, 2)
    cells = draw_cells(3, 9, 4, generator)
    assert_close(take_cells(tokens, cells), reference.graph_tokens(tokens, cells), rtol=0, atol=0)


@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_normalized_tokens_are_unit_vectors(dtype, rtol):
    tokens = _features(6, 5, dtype=dtype) * torch.logspace(-4, 4, 6, dtype=dtype)[:, None]
    assert normalize(tokens).dtype == dtype
    assert_close(normalize(tokens), reference.unit_vectors(tokens), rtol=rtol, atol=1e-7 if rtol > 1e-9 else 1e-12)
    assert_close(normalize(tokens.view(2, 3, 5)), normalize(tokens).view(2, 3, 5), rtol=rtol)


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e-17, 3e-16, 1e-10, 1.0])
def test_vectors_shorter_than_eps_are_left_as_they_are(scale):
    direction = torch.tensor([[0.6, 0.0, -0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)
    tokens = (direction * scale).requires_grad_()
    expected = direction * scale if scale < torch.finfo(torch.float64).eps else direction
    assert_close(normalize(tokens), expected, rtol=1e-12, atol=0)
    weights = _features(2, 3)
    (gradient,) = torch.autograd.grad((normalize(tokens) * weights).sum(), tokens)
    (wanted,) = torch.autograd.grad((reference.unit_vectors(tokens) * weights).sum(), tokens)
    assert_all_finite(gradient)
    assert_close(gradient, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


def test_gradcheck_of_normalize():
    tokens = _features(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(normalize, (tokens,))
    assert torch.autograd.gradgradcheck(normalize, (tokens,))
    tokens = torch.cat([tokens.detach(), torch.zeros(1, 3, dtype=tokens.dtype)]).requires_grad_()
    gradient = torch.autograd.grad(normalize(tokens).square().sum(), tokens, create_graph=True)[0]
    assert torch.autograd.grad(gradient.sum(), tokens)[0].isfinite().all()
