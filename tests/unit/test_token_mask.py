"""`token_mask`: what the host hands over becomes a mask of the token grid, and the losses see the tokens that count."""

import functools
import re

import pytest
import reference
import torch
from helpers import assert_close, gradient_of
from loss_table import ENDS
from torch._dynamo.utils import counters
from torchvision.models.detection.image_list import ImageList

from trg_torchdistill import TokenContextualLoss, TRGError, TRGLoss
from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss
from trg_torchdistill.tokens import any_in_cell
from trg_torchdistill.wrappers import TokenProjector

pytestmark = pytest.mark.filterwarnings('ignore:expected `num_neighbors`')
LOSSES = pytest.mark.parametrize('cls', [TRGLoss, TokenContextualLoss])
TEXT = {'layout': 'bld', 'num_prefix_tokens': 1}
ATTENTION = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
AT_MASK = {'path': 'mask'}


def io_dicts(student, teacher, mask=None):
    """Both hooked features, and the mask among those of the student."""
    return {'map': {'output': student}, 'mask': {'output': mask}}, {'map': {'output': teacher}}


def expected(cls, student, teacher, mask):
    """The formula on the tokens [B, N, D] of which `mask` says which count."""
    if cls is TokenContextualLoss:
        return reference.contextual_loss(student, teacher, mask)
    tokens = [reference.graph_tokens_of(each, mask) for each in (student, teacher)]
    return reference.local_preserving_loss(*tokens) + reference.global_relationship_loss(*tokens)


def build(cls, **options):
    return cls(**ENDS, **options, **({'tokens_per_image': None} if cls is TRGLoss else {}))


@pytest.mark.parametrize('size', [(3, 2), (7, 5), (2, 4), (1, 1), (9, 6), (14, 5)], ids=str)
def test_a_cell_counts_if_any_pixel_does_that_adaptive_pooling_takes(size):
    mask = torch.rand(4, 7, 5) < 0.2
    pooled = reference.average_pool(mask[:, None].double(), *size)[:, 0]
    assert torch.equal(any_in_cell(mask, size), pooled > 0)


@LOSSES
@pytest.mark.parametrize('dtype', [torch.long, torch.bool, torch.float32], ids=str)
def test_a_text_has_the_tokens_of_its_attention_mask_without_its_prefix(cls, dtype):
    student, teacher = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    loss = build(cls, student_tokens=TEXT, teacher_tokens=TEXT, token_mask=AT_MASK)
    value = loss(*io_dicts(student, teacher, ATTENTION.to(dtype)))
    assert_close(value, expected(cls, student[:, 1:], teacher[:, 1:], ATTENTION[:, 1:] > 0))


@LOSSES
def test_the_mask_is_that_of_the_grid_that_both_were_pooled_to(cls):
    """A class token and 4 x 4 cells, cut into patches: 2 x 2; a map of 3 x 4: the common grid is 2 x 2."""
    student, teacher = torch.randn(2, 17, 3, dtype=torch.float64), torch.randn(2, 12, 3, 4, dtype=torch.float64)
    mask = torch.ones(2, 17)
    mask[0, 1:9] = mask[1, [1, 2, 5]] = 0
    loss = build(cls, student_tokens={'num_prefix_tokens': 1, 'patch_size': 2}, token_mask=AT_MASK)
    grids = reference.token_grid(student, 'bnd', 2, 1), reference.token_grid(teacher)
    tokens = [reference.sequence(grid) for grid in reference.common_grids(*grids)]
    cells = torch.tensor([[False, False, True, True], [True] * 4])
    assert_close(loss(*io_dicts(student, teacher, mask)), expected(cls, *tokens, cells))


@LOSSES
def test_pixels_count_by_the_labels_of_the_targets(cls):
    student, teacher = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64)
    targets = torch.randint(5, (2, 10, 11))
    targets[0, :, 3:] = targets[1, :7] = 255
    loss = build(cls, token_mask={'ignore_index': 255})
    cells = torch.tensor([[True, False, False] * 3, [False] * 6 + [True] * 3])
    value = loss(*io_dicts(student, teacher), targets)
    assert_close(value, expected(cls, *(reference.sequence(each) for each in (student, teacher)), cells))


@pytest.mark.parametrize('in_tuple', [False, True])
@LOSSES
def test_the_pixels_inside_the_images_of_a_padded_batch_count(cls, in_tuple):
    """A pixel of the fourth row reaches the second row of cells."""
    student, teacher = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64)
    images = ImageList(torch.zeros(2, 3, 9, 12), [(9, 5), (4, 12)])
    loss = build(cls, token_mask=AT_MASK)
    value = loss(*io_dicts(student, teacher, (images, None) if in_tuple else images))
    cells = torch.tensor([[True, True, False] * 3, [True] * 6 + [False] * 3])
    assert_close(value, expected(cls, *(reference.sequence(each) for each in (student, teacher)), cells))


def test_each_image_gives_the_same_number_or_all_that_count():
    loss = TRGLoss(**ENDS, tokens_per_image=2, num_neighbors=1, token_mask=AT_MASK, queue_size=100)
    mask = torch.zeros(4, 9)
    mask[1, 4], mask[2, :6], mask[3] = 1, 1, 1
    teacher = torch.arange(36.0).view(4, 1, 3, 3)
    for _ in range(50):
        loss.queue.tokens = None
        loss(*io_dicts(torch.randn(4, 1, 3, 3), teacher, mask.view(4, 3, 3)))
        drawn = loss.queue.tokens.flatten().int().tolist()
        assert [number // 9 for number in drawn] == [1, 2, 2, 3, 3]
        assert len(set(drawn)) == 5
        assert all(mask.flatten()[number] for number in drawn)


def test_the_queue_is_empty_after_batches_of_padding_and_the_next_is_as_the_first():
    student, teacher = torch.randn(2, 2, 4, 3, 3)
    options = {'tokens_per_image': None, 'queue_size': 10, 'token_mask': AT_MASK}
    values = []
    for batches_of_padding in (0, 2):
        loss = TRGLoss(**ENDS, **options)
        for _ in range(batches_of_padding):
            assert loss(*io_dicts(student, teacher, torch.zeros(2, 3, 3))) == 0
        values += [loss(*io_dicts(student, teacher, torch.ones(2, 3, 3))) for _ in range(2)]
    assert values[:2] == values[2:]
    assert len(loss.queue.tokens) == 10


def test_projected_tokens_of_a_text():
    student, teacher = torch.randn(3, 6, 4, requires_grad=True), torch.randn(3, 6, 5)
    projector = TokenProjector('student_model', 'output', 4, 5, TEXT)
    loss = TRGLoss(
        **ENDS, projection_module_path='projected', tokens_per_image=None, num_neighbors=3, student_tokens=TEXT,
        teacher_tokens=TEXT, token_mask=AT_MASK,
    )  # fmt: skip
    features = io_dicts(student, teacher, ATTENTION)
    features[0]['projected'] = {'output': projector(student)}
    counted = ATTENTION[:, 1:] > 0
    own, teachers, projected = (
        each[counted] for each in (student[:, 1:], teacher[:, 1:], projector.linear(student[:, 1:]))
    )
    wanted = local_preserving_loss(own, teachers, 3) + global_relationship_loss(projected, teachers)
    assert_close(loss(*features), wanted, rtol=1e-5)


@LOSSES
def test_both_weights_0_are_a_zero_whatever_the_padding(cls):
    weights = {'local_weight': 0, 'global_weight': 0} if cls is TRGLoss else {'weight': 0}
    student = torch.full((2, 4, 3, 3), torch.nan, requires_grad=True)
    value = build(cls, **weights, token_mask=AT_MASK)(*io_dicts(student, student.detach(), torch.zeros(2, 3, 3)))
    assert torch.equal(gradient_of(value, student), torch.zeros_like(student))


@pytest.mark.slow
def test_batches_of_fewer_tokens_do_not_compile_anew(monkeypatch):
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='eager'))
    losses = [TRGLoss(**ENDS, tokens_per_image=3, token_mask=AT_MASK, compile=compiled) for compiled in (False, True)]
    for counted in ([3, 9], [2, 9], [0, 1], [0, 0], [5, 3]):
        mask = torch.arange(9) < torch.tensor(counted)[:, None]
        student, teacher = torch.randn(2, 2, 4, 3, 3)
        values = []
        for loss in losses:
            torch.manual_seed(0)
            values.append(loss(*io_dicts(student, teacher, mask)))
        assert_close(values[1], values[0], rtol=1e-6)
    assert counters['stats']['unique_graphs'] == 2, 'one of each formula'


@LOSSES
def test_under_autocast_the_padding_has_no_influence(cls):
    student, teacher = torch.randn(2, 3, 6, 4)
    loss = build(cls, student_tokens=TEXT, teacher_tokens=TEXT, token_mask=AT_MASK)
    values = []
    for padding in (0, torch.nan):
        padded = [torch.where(ATTENTION[:, :, None] > 0, each, padding) for each in (student, teacher)]
        with torch.autocast('cpu', torch.bfloat16):
            values.append(loss(*io_dicts(*padded, ATTENTION)))
    assert values[0] == values[1] > 0
    assert values[0].dtype == torch.float32


@LOSSES
def test_facts_are_of_the_tokens_that_count(cls):
    student, teacher = torch.randn(2, 3, 6, 4)
    teacher[ATTENTION == 0] = torch.nan
    loss = build(cls, student_tokens=TEXT, teacher_tokens=TEXT, token_mask=AT_MASK)
    facts = loss.facts('trg', *io_dicts(student, teacher, ATTENTION), 6)
    assert (facts.cells, facts.padding) == (5, pytest.approx(8 / 15))
    assert '5 tokens an image (53.3% padding)' in facts.line(6)
    assert all(share == share for share in facts.on_teacher_edges.values())
    if cls is TRGLoss:
        assert (facts.num_tokens, facts.num_tokens_yaml) == (7, 14)
    facts = loss.facts('trg', *io_dicts(student, teacher, torch.zeros(3, 6)), 6)
    assert facts.padding == 1
    assert '(100.0% padding)' in facts.line(6)


def test_rows_of_a_single_token_are_not_saturated():
    mask = torch.zeros(2, 3, 3)
    mask[:, 1, 1] = 1
    loss = TokenContextualLoss(**ENDS, token_mask=AT_MASK)
    facts = loss.facts('contextual', *io_dicts(*torch.randn(2, 2, 4, 3, 3), mask), 2)
    assert facts.saturated == {'student': 0, 'teacher': 0}


MASK = {'token_mask': AT_MASK}
LABELS = {'token_mask': {'ignore_index': 255}}
TEXTS = {'student_tokens': {'layout': 'bld'}, 'teacher_tokens': {'layout': 'bld'}}
MAPS = (2, 4, 3, 3), (2, 4, 3, 3)
BAD_MASKS = {
    'not hooked': (MAPS, {'token_mask': {'path': 'maks'}}, None, "expected the student's `maks` output among the"),
    'other side': (MAPS, {'token_mask': AT_MASK | {'side': 'teacher'}}, None,
                   "`TRGLoss` expected the teacher's `mask` output among the hooked modules, got ['map']; add "
                   "'mask' to `train.teacher.forward_hook.output`; change `token_mask:` of `TRGLoss`"),
    'rank': (MAPS, MASK, torch.ones(2, 1, 1, 9), "the student's `mask` output to be a mask [B, L] of tokens or "
             '[B, H, W] of pixels, got shape [2, 1, 1, 9]; change `token_mask:` of `TRGLoss`'),
    'several': (MAPS, MASK, {'a': torch.ones(2, 9), 'b': torch.ones(2, 9)}, "got a mapping with ['a', 'b']; add "
                "`key: 'a'`, or another of them, to `token_mask:` of `TRGLoss`"),
    'length': (MAPS, MASK, torch.ones(2, 8), "expected a mask [B, L] = [2, 9] of the student's tokens, of which "
               '`num_prefix_tokens` = 0 are dropped, got shape [2, 8]; change `token_mask:` of `TRGLoss`'),
    'batch': (MAPS, MASK, torch.ones(3, 9, 9), 'expected a mask [B, H, W] with B = 2, got shape [3, 9, 9]'),
    'pixels of a text': (((2, 5, 4), (2, 5, 4)), MASK | TEXTS, torch.ones(2, 1, 5),
                         "expected a mask [B, L] for layout 'bld' with B = 2, got shape [2, 1, 5]"),
    'no targets': (MAPS, LABELS, None, 'expected the targets of the batch to be the labels [B, H, W] of pixels, among '
                   'which is `ignore_index`, got NoneType; change `token_mask:` of `TRGLoss`'),
    'boxes': (MAPS, LABELS, [{'boxes': torch.ones(1, 4)}], 'got list; change `token_mask:` of `TRGLoss`'),
    'classes': (MAPS, LABELS, torch.ones(2), 'got shape [2]; change `token_mask:` of `TRGLoss`'),
    'soft labels, as many as tokens': (MAPS, LABELS, torch.ones(2, 9), 'got shape [2, 9]; change `token_mask:`'),
    'added to logits': (MAPS, MASK, torch.full((2, 9), -1e4), "the student's `mask` output to be a mask with 1 "
                        'for what counts and 0 for padding, got values down to -10000, as of a feature, or of a mask '
                        'that is added to logits; change `token_mask:` of `TRGLoss`'),
    'infinite': (MAPS, MASK, torch.full((2, 9), -torch.inf), 'got values down to -inf'),
    'not a number': (MAPS, MASK, torch.full((2, 9, 9), torch.nan), 'got values down to nan'),
}  # fmt: skip


@pytest.mark.parametrize('kind', BAD_MASKS)
def test_a_mask_that_does_not_fit(kind):
    shapes, options, value, message = BAD_MASKS[kind]
    loss = TRGLoss(**ENDS, **options)
    with pytest.raises(TRGError, match=re.escape(message)):
        loss(*io_dicts(*map(torch.randn, shapes), value), value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'expected `token_mask` to name a hooked module, {path: ...}, or a label, {ignore_index: ...}, got path=N'),
        ({'path': 'x', 'ignore_index': 1}, "got path='x' and ignore_index=1"),
        ({'ignore_index': True}, 'expected `ignore_index` to be an integer, got True'),
        ({'ignore_index': '255'}, "expected `ignore_index` to be an integer, got '255' (a string in YAML; write 255)"),
        ({'ignore_index': -(2**70)}, 'expected `ignore_index` to be an integer of at most 64 bits, got one of 71'),
        ({'ignore_index': 1, 'side': 'teacher'}, 'expected no `io`, `side` or `key` beside `ignore_index`'),
        ({'path': 'x', 'io': 'outputs'}, "expected `io` to be one of 'input', 'output', got 'outputs'; did you mean"),
        ({'path': 'x', 'side': 'both'}, "expected `side` to be one of 'student', 'teacher', got 'both'"),
        ({'path': 3}, "expected `path` to be a non-empty string, got 3 (a number in YAML; write '3')"),
        ({'paht': 'x'}, "expected `token_mask` to have keys among ['path', 'io', 'side', 'key', 'ignore_index'], got"),
        ('mask', 'expected `token_mask` to be a mapping'),
    ],
    ids=str,
)  # fmt: skip
@LOSSES
def test_options_of_a_mask_that_are_wrong(options, message, cls):
    with pytest.raises(TRGError, match=re.escape(message)) as caught:
        cls(**ENDS, token_mask=options)
    assert f'change it under the `kwargs:` of `{cls.__name__}`' in str(caught.value)


@LOSSES
@pytest.mark.parametrize('options', [TEXTS, {'student_tokens': {'layout': 'bld'}}], ids=['both', 'one'])
def test_texts_of_different_lengths(options, cls):
    message = (
        "expected texts ('bld') of the same length, got 5 tokens from `map` and 4 from `map`; both models need the "
        f"same tokenisation, and `layout: 'bld'` in `student_tokens:` and `teacher_tokens:` of `{cls.__name__}`"
    )
    with pytest.raises(TRGError, match=f'^{re.escape(message)}$'):
        cls(**ENDS, **options)(*io_dicts(torch.randn(2, 5, 4), torch.randn(2, 4, 4)))


def test_a_mask_of_another_type_or_shape():
    tokens = torch.randn(2, 3, 4)
    for mask in (torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool), [[True]]):
        with pytest.raises(TRGError, match='expected `mask` to be'):
            contextual_loss(tokens, tokens, mask)
