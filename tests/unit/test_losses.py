"""TRGLoss and TokenContextualLoss: what their keywords do to the tokens; for the formulas see test_functional."""

import copy
import math

import pytest
import torch
from helpers import assert_close
from torchdistill.losses.high_level import WeightedSumLoss

from trg_torchdistill import TokenContextualLoss, TRGLoss
from trg_torchdistill.functional import (
    GlobalTerm,
    LocalTerm,
    contextual_loss,
    global_relationship_loss,
    local_preserving_loss,
)

PATHS = ('layer4', 'output', 'block', 'input')
DYNAMIC = {'start': 0.5, 'end': 0.1, 'schedule': 'linear'}


def io_dicts(student, teacher, **projections):
    """The host's two dicts of hooked features for the paths of PATHS; `projections` are further student features."""
    projected = {f'projectors.{name}': {'output': value} for name, value in projections.items()}
    return {'layer4': {'output': student}, **projected}, {'block': {'input': teacher}}


def numbered_map(batch_size=2, height=4, width=4, channels=1):
    """A feature map whose value is the number of its image and cell."""
    count = batch_size * height * width
    return torch.arange(1.0, count + 1).reshape(batch_size, 1, height, width).repeat(1, channels, 1, 1)


@pytest.fixture
def seen(monkeypatch):
    """The tokens that reach the two formulas, in order: (term, student, teacher)."""
    calls = []
    for name, kind in (('local', LocalTerm), ('global', GlobalTerm)):

        def spy(term, student, teacher, *args, name=name, formula=kind.__call__):
            calls.append((name, student, teacher))
            return formula(term, student, teacher, *args)

        monkeypatch.setattr(kind, '__call__', spy)
    return calls


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'kl_direction': 'student_teacher', 'row_distribution': 'softmax_edges', 'local_reduction': 'mean'},
        {'normalize_tokens': False, 'sigma': 2.0, 'num_neighbors': 3},
        {'temperature': 0.7, 'global_reduction': 'sum'},
    ],
    ids=str,
)
@pytest.mark.parametrize('weights', [(1.0, 1.0), (0.5, 2.0), (0, 3.0), (0.25, 0)], ids=str)
def test_value_is_the_weighted_sum_of_the_formulas(options, weights):
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    loss = TRGLoss(*PATHS, tokens_per_image=None, local_weight=weights[0], global_weight=weights[1], **options)
    tokens = [feature.flatten(2).transpose(1, 2).flatten(0, 1) for feature in (student, teacher)]
    names = ('kl_direction', 'row_distribution', 'normalize_tokens')
    local = local_preserving_loss(
        *tokens,
        options.get('num_neighbors', 8),
        options.get('sigma', 0.5),
        **{name: options[name] for name in names if name in options},
        reduction=options.get('local_reduction', 'sum'),
    )
    global_ = global_relationship_loss(
        *tokens, options.get('temperature', 0.1), reduction=options.get('global_reduction', 'mean')
    )
    expected = weights[0] * local + weights[1] * global_
    assert_close(loss(*io_dicts(student, teacher)), expected.double(), rtol=1e-5)
    terms = {name: term for name, term, weight in (('local', local, 0), ('global', global_, 1)) if weights[weight]}
    assert list(loss.terms()) == list(terms)
    for name, term in terms.items():
        assert_close(loss.terms()[name][1], term.double(), rtol=1e-5)


@pytest.mark.parametrize(
    'options', [{}, {'reduction': 'batchmean'}, {'normalize_tokens': True, 'temperature': 0.5}], ids=str
)
def test_contextual_value_is_the_formula_on_all_tokens(options):
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    loss = TokenContextualLoss(*PATHS, **options)
    tokens = [feature.flatten(2).transpose(1, 2) for feature in (student, teacher)]
    assert_close(loss(*io_dicts(student, teacher)), contextual_loss(*tokens, **options).double(), rtol=1e-6)


def test_weight_0_skips_the_local_term_and_its_cost(seen):
    TRGLoss(*PATHS, local_weight=0)(*io_dicts(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)))
    assert [term for term, _, _ in seen] == ['global']


def test_weight_0_skips_the_global_term_its_projection_and_its_temperature(seen):
    loss = TRGLoss(
        *PATHS, projection_module_path='projectors.none', temperature=DYNAMIC, global_weight=0, num_neighbors=4
    )
    loss(*io_dicts(torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)))
    assert [term for term, _, _ in seen] == ['local']
    assert loss.current_temperature is None


def test_both_weights_0_give_a_zero_that_backpropagates(seen):
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = TRGLoss(*PATHS, local_weight=0, global_weight=0)(*io_dicts(student, torch.randn(2, 5, 4, 4)))
    value.backward()
    assert seen == []
    assert value == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize(
    ('batch_size', 'per_image', 'cap', 'expected'),
    [
        (4, 8, 4096, 32),
        (4, None, 4096, 64),
        (4, None, None, 64),
        (4, 100, None, 64),
        (4, 16, 40, 40),
        (4, 16, 43, 40),
        (4, None, 63, 60),
        (4, 8, 3, 4),
        (4, 8, 1, 4),
        (1, 5, 4096, 5),
    ],
)
def test_number_of_tokens_in_the_graph(seen, batch_size, per_image, cap, expected):
    loss = TRGLoss(*PATHS, tokens_per_image=per_image, max_tokens=cap, num_neighbors=1)
    loss(*io_dicts(torch.randn(batch_size, 3, 4, 4), torch.randn(batch_size, 3, 4, 4)))
    assert [(len(student), len(teacher)) for _, student, teacher in seen] == [(expected, expected)] * 2


def test_same_cells_are_drawn_for_teacher_student_and_projection(seen):
    loss = TRGLoss(*PATHS, 'projectors.layer4', tokens_per_image=5, num_neighbors=2)
    student, teacher = numbered_map(channels=2), numbered_map(channels=3)
    loss(*io_dicts(student, teacher, layer4=teacher.flatten(2).transpose(1, 2)))
    (_, local_student, local_teacher), (_, projected, global_teacher) = seen
    cells = local_teacher[:, 0]
    assert len(cells.unique()) == len(cells) == 10
    for tokens in (local_student, projected, global_teacher):
        assert torch.equal(tokens[:, 0], cells)
    assert ((cells[:5] <= 16) & (cells[5:] > 16)).all()


@pytest.mark.parametrize('size', [(2, 2), (8, 8), (2, 4), (4, 2), (8, 2)], ids=str)
def test_both_grids_are_pooled_before_the_draw(seen, size):
    """Also the projection, which comes on the student's grid; the teacher's grid is 4 x 4."""
    student, teacher = numbered_map(2, *size), numbered_map(2, 4, 4)
    projected = student.flatten(2).transpose(1, 2)
    loss = TRGLoss(*PATHS, 'projectors.layer4', tokens_per_image=3, num_neighbors=2)
    loss(*io_dicts(student, teacher, layer4=projected))
    common = (min(size[0], 4), min(size[1], 4))
    pooled = [torch.nn.functional.adaptive_avg_pool2d(grid, common).flatten() for grid in (student, teacher)]
    for _, *tokens in seen:
        for drawn, cells in zip(tokens, pooled, strict=True):
            assert len(drawn) == 6
            assert torch.isin(drawn[:, 0], cells).all()


def test_cells_change_from_step_to_step_and_follow_the_seed(seen):
    loss = TRGLoss(*PATHS, tokens_per_image=4, num_neighbors=2)
    for seed in (1, None, 1):
        if seed is not None:
            torch.manual_seed(seed)
        loss(*io_dicts(numbered_map(), numbered_map()))
    first, second, again = (tokens for term, tokens, _ in seen if term == 'local')
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_one_warning_when_the_neighbours_are_clipped():
    loss = TRGLoss(*PATHS, num_neighbors=8, tokens_per_image=2)
    message = (
        'expected `num_neighbors` of `TRGLoss` to be less than the 4 tokens of the graph, got 8: clipped to 3; '
        'change `num_neighbors:`, `tokens_per_image:` or the batch size'
    )
    dicts = io_dicts(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))
    with pytest.warns(UserWarning, match='clipped to 3') as caught:
        values = [loss(*dicts) for _ in range(3)]
    assert [str(warning.message) for warning in caught] == [message]
    assert all(value.isfinite() for value in values)


@pytest.mark.parametrize('options', [{'num_neighbors': 3}, {'num_neighbors': 8, 'local_weight': 0}], ids=str)
def test_no_warning_without_clipping(recwarn, options):
    loss = TRGLoss(*PATHS, tokens_per_image=2, **options)
    loss(*io_dicts(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)))
    assert list(recwarn) == []


@pytest.mark.parametrize('key', [TRGLoss, TokenContextualLoss])
def test_means_of_an_epoch(key):
    loss, terms = key(*PATHS), []
    assert loss.epoch_means() == {}
    for epoch in range(2):
        loss.start_epoch(epoch, 2)
        terms.clear()
        for _ in range(3):
            value = loss(*io_dicts(torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)))
            assert value.requires_grad
            assert all(term.requires_grad for _, term in loss.terms().values())
            terms.append({name: term.item() for name, (_, term) in loss.terms().items()})
        for name, mean in loss.epoch_means().items():
            assert mean == pytest.approx(sum(term[name] for term in terms) / 3)
    assert list(loss.epoch_means()) == (['local', 'global'] if key is TRGLoss else ['contextual'])


def test_temperature_follows_the_epoch():
    loss = TRGLoss(*PATHS, temperature=DYNAMIC)
    assert loss.current_temperature is None
    with pytest.raises(
        ValueError, match='expected the schedule `temperature` to be told its epoch, got none; add `pre_'
    ):
        loss(*io_dicts(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)))
    values = []
    for epoch in range(3):
        loss.start_epoch(epoch, 3)
        values.append(loss.current_temperature)
    assert values == pytest.approx([0.5, 0.3, 0.1])


def test_constant_temperature_needs_no_process():
    loss = TRGLoss(*PATHS, temperature=0.2)
    assert loss.current_temperature == 0.2
    loss.start_epoch(3, 10)
    assert loss.current_temperature == 0.2


def test_temperature_reaches_the_formula():
    """Orthogonal tokens: the diagonal has similarity 1, the rest 0."""
    eye = torch.eye(4).reshape(1, 4, 2, 2).clone()
    for temperature in (0.1, 1.0):
        loss = TRGLoss(*PATHS, temperature=temperature, local_weight=0)
        expected = math.log(1 + 3 * math.exp(-1 / temperature))
        assert float(loss(*io_dicts(eye, eye))) == pytest.approx(expected, rel=1e-3)


def test_losses_copy_print_and_own_nothing():
    for key in (TRGLoss, TokenContextualLoss):
        loss = copy.deepcopy(key(*PATHS))
        assert repr(loss) == f'{key.__name__}(layer4 <- block)'
        assert list(loss.state_dict()) == []
        total = WeightedSumLoss(sub_terms={'ours': {'criterion': loss, 'weight': 0.5}})
        assert str(total) == f'Loss = 0.5 * {key.__name__}(layer4 <- block)'
