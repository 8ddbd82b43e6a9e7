"""What each formula is alone: its defaults, cases by hand, whole pipelines from features, and what it refuses."""

import math

import pytest
import reference
import torch
from helpers import assert_close, gradient_of
from loss_table import EVERY

from trg_torchdistill import _blocks, context, functional
from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss
from trg_torchdistill.tokens import Tokenizer, draw_cells, flatten_grid, pool_to_common_grid, take_cells

PRECISIONS = [(torch.float64, 1e-9), (torch.float32, 1e-5)]


@pytest.mark.parametrize('name', ['local', 'local, student_teacher', 'local, softmax_edges', 'local, raw'])
def test_local_loss_in_float32_stays_accurate_on_a_larger_graph(name):
    """log Z is about log M while a row's KL shrinks as 1/M: subtracting the logarithms would lose the value."""
    student, teacher = torch.randn(1, 100, 16), torch.randn(1, 100, 16)
    options = {'sigma': 10.0} if 'raw' in name else {}
    assert_close(EVERY[name](student, teacher, **options), EVERY[name].expected(student, teacher, **options), rtol=1e-5)


def test_local_loss_defaults_are_those_of_the_design():
    student, teacher = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 7, dtype=torch.float64)
    expected = reference.local_preserving_loss(student, teacher, num_neighbors=8, sigma=0.5)
    assert_close(local_preserving_loss(student, teacher), expected)


@pytest.mark.parametrize('sigma', [0.5, 2.0])
def test_local_loss_of_two_tokens_by_hand(sigma):
    """Two tokens, one neighbour: the row holds j = i with logit 0, and the affinity divides by 2 sigma."""
    student = torch.tensor([[0.0], [0.8]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [0.3, 0.4]], dtype=torch.float64)
    student_weight = math.exp(math.exp(-0.64 / (2 * sigma)))
    teacher_weight = math.exp(math.exp(-0.25 / (2 * sigma)))
    p, q = teacher_weight / (1 + teacher_weight), student_weight / (1 + student_weight)
    row = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    options = {'num_neighbors': 1, 'sigma': sigma, 'normalize_tokens': False}
    assert_close(local_preserving_loss(student, teacher, **options), 2 * row)
    assert_close(local_preserving_loss(student, teacher, row_distribution='softmax_edges', **options), 0.0)


def test_global_loss_compares_a_student_token_with_all_teacher_tokens_by_hand():
    """Both students look like teacher 0. The sum over students instead of teachers would give 2 log 2."""
    student = torch.tensor([[5.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    expected = math.log1p(math.exp(-2)) + math.log1p(math.exp(2))
    assert_close(global_relationship_loss(student, teacher, temperature=0.5, reduction='sum'), expected)


@pytest.mark.parametrize(('dtype', 'rtol'), PRECISIONS)
@pytest.mark.parametrize(('num_tokens', 'reduction'), [(5, 'mean'), (5, 'sum'), (4200, 'mean')])
def test_global_loss_is_the_dense_cross_entropy(num_tokens, dtype, rtol, reduction):
    """4200 tokens are more than one block; the loss is one of several summands."""
    student, teacher = torch.randn(2, num_tokens, 3, dtype=dtype)
    student.requires_grad_()
    exact = student.detach().double().requires_grad_()
    cosines = torch.nn.functional.normalize(exact) @ torch.nn.functional.normalize(teacher.double()).T
    expected = torch.nn.functional.cross_entropy(cosines / 0.2, torch.arange(num_tokens), reduction=reduction)
    actual = global_relationship_loss(student, teacher, 0.2, reduction=reduction)
    assert_close(actual, expected, rtol=rtol)
    wanted = gradient_of(3 * expected + exact.square().sum(), exact)
    gradient = gradient_of(3 * actual + student.square().sum(), student)
    assert_close(gradient, wanted, rtol=10 * rtol, atol=10 * rtol * float(wanted.abs().max()))


def test_global_and_contextual_defaults_are_those_of_the_design():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    assert_close(
        contextual_loss(student, teacher),
        reference.contextual_loss(student, teacher, normalize_tokens=False, reduction='mean'),
    )
    assert_close(
        global_relationship_loss(student[0], teacher[0]),
        reference.global_relationship_loss(student[0], teacher[0], 0.1, 'mean'),
    )


PIPELINES = {
    'cnn, cnn': ((2, 4, 3, 3), {}, (2, 4, 3, 3), {}),
    'cnn, cnn, unequal widths': ((2, 3, 3, 3), {}, (2, 5, 3, 3), {}),
    'cnn patch 2, cnn patch 2': ((2, 2, 4, 6), {'patch_size': 2}, (2, 3, 4, 6), {'patch_size': 2}),
    'cnn patch 2, cnn patch 1': ((2, 2, 4, 4), {'patch_size': 2}, (2, 3, 2, 2), {'patch_size': 1}),
    'unequal grids': ((2, 3, 4, 3), {}, (2, 4, 3, 5), {}),
    'cnn, vit': ((2, 3, 3, 3), {}, (2, 10, 4), {'num_prefix_tokens': 1}),
    'cnn, vit, unequal grids': (
        (2, 3, 3, 3),
        {'layout': 'bchw'},
        (2, 17, 4),
        {'layout': 'bnd', 'num_prefix_tokens': 1},
    ),
    'vit, vit': ((2, 11, 3), {'num_prefix_tokens': 2}, (2, 10, 4), {'num_prefix_tokens': 1}),
    'vit, flat grid': ((2, 6, 3), {'layout': 'bnd', 'grid_size': [2, 3]}, (2, 4, 2, 3), {}),
    'cnn, swin': ((2, 3, 3, 3), {}, (2, 3, 3, 4), {'layout': 'bhwc'}),
    'swin patch 2, swin': ((2, 4, 4, 3), {'layout': 'bhwc', 'patch_size': 2}, (2, 2, 2, 4), {'layout': 'bhwc'}),
    'vectors': ((7, 3), {'layout': 'bd'}, (7, 4), {'layout': 'bd'}),
}


def _student_and_teacher_tokens(feature, teacher_feature, options, teacher_options, generator):
    student, teacher = Tokenizer(**options)(feature), Tokenizer(**teacher_options)(teacher_feature)
    student, teacher = (flatten_grid(grid) for grid in pool_to_common_grid(student, teacher))
    num_cells = student.shape[1]
    cells = draw_cells(student.shape[0], num_cells, min(4, num_cells), generator)
    return student, teacher, cells


def _reference_tokens(feature, teacher_feature, options, teacher_options):
    grids = []
    for tensor, chosen in ((feature, options), (teacher_feature, teacher_options)):
        layout = {4: 'bchw', 3: 'bnd', 2: 'bd'}[tensor.dim()]
        grids.append(reference.token_grid(tensor, **({'layout': layout} | chosen)))
    return tuple(reference.sequence(grid) for grid in reference.common_grids(*grids))


@pytest.mark.parametrize(('dtype', 'rtol'), PRECISIONS)
@pytest.mark.parametrize(('shape', 'options', 'teacher_shape', 'teacher_options'), PIPELINES.values(), ids=PIPELINES)
def test_from_features_to_losses(shape, options, teacher_shape, teacher_options, dtype, rtol, generator):
    feature, teacher_feature = torch.randn(shape, dtype=dtype).requires_grad_(), torch.randn(teacher_shape, dtype=dtype)
    exact = feature.detach().double().requires_grad_()
    student, teacher, cells = _student_and_teacher_tokens(feature, teacher_feature, options, teacher_options, generator)
    tokens, teacher_tokens = take_cells(student, cells), take_cells(teacher, cells)
    projection = torch.randn(student.shape[-1], teacher.shape[-1], dtype=dtype)
    actual = (
        local_preserving_loss(tokens, teacher_tokens, num_neighbors=3),
        global_relationship_loss(tokens @ projection, teacher_tokens),
        contextual_loss(student, teacher),
    )
    student, teacher = _reference_tokens(exact, teacher_feature, options, teacher_options)
    tokens, teacher_tokens = reference.graph_tokens(student, cells), reference.graph_tokens(teacher, cells)
    expected = (
        reference.local_preserving_loss(tokens, teacher_tokens, num_neighbors=3),
        reference.global_relationship_loss(tokens @ projection.double(), teacher_tokens),
        reference.contextual_loss(student, teacher),
    )
    for loss, expected_loss in zip(actual, expected, strict=True):
        assert_close(loss, expected_loss, rtol=rtol)
    wanted = gradient_of(sum(expected), exact)
    assert_close(gradient_of(sum(actual), feature), wanted, rtol=10 * rtol, atol=10 * rtol * float(wanted.abs().max()))


@pytest.mark.parametrize('name', ['cnn patch 2, cnn patch 2', 'unequal grids', 'cnn, vit', 'swin patch 2, swin'])
def test_gradcheck_from_the_feature_to_the_losses(name):
    shape, options, teacher_shape, teacher_options = PIPELINES[name]
    feature = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    teacher_feature = torch.randn(teacher_shape, dtype=torch.float64)

    def losses(feature):
        generator = torch.Generator().manual_seed(0)
        student, teacher, cells = _student_and_teacher_tokens(
            feature, teacher_feature, options, teacher_options, generator
        )
        local = local_preserving_loss(take_cells(student, cells), take_cells(teacher, cells), num_neighbors=3)
        return local, contextual_loss(student, teacher)

    assert torch.autograd.gradcheck(losses, (feature,))


def test_a_large_context_is_computed_in_blocks_of_images(monkeypatch):
    images_seen = []
    similarity = context.context_similarity
    monkeypatch.setattr(
        context, 'context_similarity', lambda *args: images_seen.append(len(args[0])) or similarity(*args)
    )
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', 3 * 4 * 4 * 4)
    functional.contextual_loss(torch.randn(7, 4, 2), torch.randn(7, 4, 2))
    assert images_seen == [3, 3, 3, 3, 1, 1]


LOCAL, GLOBAL, CONTEXT = local_preserving_loss, global_relationship_loss, contextual_loss
FLAT, IMAGES = torch.ones(6, 4), torch.ones(2, 3, 4)
BAD_ARGUMENTS = {
    'local of images': (LOCAL, (IMAGES, IMAGES), {}, ValueError, 'student'),
    'local teacher of images': (LOCAL, (FLAT, IMAGES), {}, ValueError, 'teacher'),
    'local of unequal counts': (LOCAL, (FLAT, FLAT[:5]), {}, ValueError, '(student|teacher)'),
    'local of a list': (LOCAL, ([[1.0]], FLAT), {}, TypeError, 'student'),
    'local of no teacher': (LOCAL, (FLAT, None), {}, TypeError, 'teacher'),
    'local of integers': (LOCAL, (FLAT.long(), FLAT), {}, TypeError, 'student'),
    'local no neighbors': (LOCAL, (FLAT, FLAT), {'num_neighbors': 0}, ValueError, 'num_neighbors'),
    'local half neighbor': (LOCAL, (FLAT, FLAT), {'num_neighbors': 1.5}, TypeError, 'num_neighbors'),
    'local zero sigma': (LOCAL, (FLAT, FLAT), {'sigma': 0.0}, ValueError, 'sigma'),
    'local negative sigma': (LOCAL, (FLAT, FLAT), {'sigma': -1}, ValueError, 'sigma'),
    'local nan sigma': (LOCAL, (FLAT, FLAT), {'sigma': float('nan')}, ValueError, 'sigma'),
    'local text sigma': (LOCAL, (FLAT, FLAT), {'sigma': '0.5'}, TypeError, 'sigma'),
    'local direction': (LOCAL, (FLAT, FLAT), {'kl_direction': 'both'}, ValueError, 'kl_direction'),
    'local support': (LOCAL, (FLAT, FLAT), {'row_distribution': 'union'}, ValueError, 'row_distribution'),
    'local reduction': (LOCAL, (FLAT, FLAT), {'reduction': 'batchmean'}, ValueError, 'reduction'),
    'local text flag': (LOCAL, (FLAT, FLAT), {'normalize_tokens': 'no'}, TypeError, 'normalize_tokens'),
    'global of images': (GLOBAL, (IMAGES, IMAGES), {}, ValueError, 'student'),
    'global of unequal widths': (GLOBAL, (FLAT, FLAT[:, :3]), {}, ValueError, '(student|teacher)'),
    'global of unequal counts': (GLOBAL, (FLAT, FLAT[:5]), {}, ValueError, '(student|teacher)'),
    'global zero temperature': (GLOBAL, (FLAT, FLAT, 0.0), {}, ValueError, 'temperature'),
    'global text temperature': (GLOBAL, (FLAT, FLAT, '0.1'), {}, TypeError, 'temperature'),
    'global reduction': (GLOBAL, (FLAT, FLAT), {'reduction': 'none'}, ValueError, 'reduction'),
    'global of a tuple': (GLOBAL, ((FLAT,), FLAT), {}, TypeError, 'student'),
    'context of a graph': (CONTEXT, (FLAT, FLAT), {}, ValueError, 'student'),
    'context of unequal batches': (CONTEXT, (IMAGES, IMAGES[:1]), {}, ValueError, '(student|teacher)'),
    'context of unequal counts': (CONTEXT, (IMAGES, IMAGES[:, :2]), {}, ValueError, '(student|teacher)'),
    'context zero temperature': (CONTEXT, (IMAGES, IMAGES), {'temperature': 0.0}, ValueError, 'temperature'),
    'context reduction': (CONTEXT, (IMAGES, IMAGES), {'reduction': 'sum'}, ValueError, 'reduction'),
    'context text flag': (CONTEXT, (IMAGES, IMAGES), {'normalize_tokens': 1}, TypeError, 'normalize_tokens'),
}


@pytest.mark.parametrize(('loss', 'tokens', 'options', 'error', 'field'), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_a_bad_argument_is_named_with_what_was_expected_and_found(loss, tokens, options, error, field):
    with pytest.raises(error, match=rf'expected `\w*{field}\w*`.*, got '):
        loss(*tokens, **options)
