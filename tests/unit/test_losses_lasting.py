"""What `TRGLoss` keeps from step to step and moves from epoch to epoch: its queue and its weights; and its facts."""

import copy
import io
import shutil

import pytest
import torch
from helpers import assert_close, gradient_of
from loss_table import ENDS
from torch._dynamo.utils import counters

from trg_torchdistill import TokenContextualLoss, TRGLoss, global_relationship_loss

COUNTED = torch.__version__ >= '2.14'  # older releases compile more graphs, around what they do not trace
SOFT = {'local_weight': 0, 'tokens_per_image': None, 'global_targets': 'teacher', 'target_temperature': 0.2}
FALLING = {'start': 1.0, 'end': 0.0, 'schedule': 'linear', 'until': 0.5}


def features(*maps):
    return tuple({'map': {'output': each}} for each in maps)


def maps(images=3, channels=4):
    return torch.randn(images, channels, 2, 2), torch.randn(images, channels, 2, 2)


def tokens(grid):
    return grid.flatten(2).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize('queue_size', [5, 12, 30, 1000])
def test_the_queue_has_the_last_teacher_tokens_of_earlier_batches(queue_size):
    loss, earlier = TRGLoss(**ENDS, **SOFT, queue_size=queue_size), torch.zeros(0, 4)
    for _ in range(5):
        student, teacher = maps()
        queue = earlier[-queue_size:] if len(earlier) else None
        expected = global_relationship_loss(tokens(student), tokens(teacher), 0.1, 0.2, queue, targets='teacher')
        assert_close(loss(*features(student, teacher)), expected, rtol=1e-5)
        earlier = torch.cat([earlier, tokens(teacher)])
    assert torch.equal(loss.queue.tokens, earlier[-queue_size:])
    assert not loss.queue.tokens.requires_grad


def test_batches_of_other_sizes_fill_the_queue_as_well():
    loss = TRGLoss(**ENDS, **SOFT, queue_size=16)
    seen = []
    for images in (3, 1, 6, 2):
        student, teacher = maps(images)
        loss(*features(student, teacher))
        seen.append(tokens(teacher))
    assert torch.equal(loss.queue.tokens, torch.cat(seen)[-16:])


def test_a_loss_goes_on_from_its_state_with_the_same_queue():
    first, second = (TRGLoss(**ENDS, **SOFT, queue_size=20) for _ in range(2))
    assert list(first.state_dict()) == []
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        first(*features(*maps()))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    batch = maps()
    values = [loss(*features(*batch)) for loss in (first, second, copy.deepcopy(first))]
    assert torch.equal(values[0], values[1])
    assert torch.equal(first.queue.tokens, second.queue.tokens)
    shorter = TRGLoss(**ENDS, **SOFT, queue_size=5)
    shorter.load_state_dict(first.state_dict())
    assert torch.equal(shorter.queue.tokens, first.queue.tokens[-5:])


def test_half_precision_tokens_are_kept_as_they_are_and_compared_in_float32():
    loss = TRGLoss(**ENDS, **SOFT, queue_size=20)
    for _ in range(2):
        student, teacher = (each.bfloat16() for each in maps())
        assert loss(*features(student, teacher)).dtype == torch.float32
    assert loss.queue.tokens.dtype == torch.bfloat16


def test_weights_follow_their_schedules_and_skip_a_term_at_0():
    loss = TRGLoss(**ENDS, local_weight=FALLING, global_weight={'start': 0.0, 'end': 2.0, 'schedule': 'cosine'})
    contextual = TokenContextualLoss(**ENDS, weight=FALLING)
    seen = []
    for epoch in range(5):
        loss.start_epoch(epoch, 5)
        contextual.start_epoch(epoch, 5)
        batch = features(*maps())
        value = loss(*batch)
        seen.append({name: weight for name, (weight, _) in loss.terms().items()})
        assert_close(value, sum(weight * term.detach() for weight, term in loss.terms().values()), rtol=1e-6)
        assert list(contextual.terms()) == [] if contextual(*batch) == 0 else ['contextual']
    assert [each.get('local') for each in seen] == [1.0, 0.5, None, None, None]
    assert [each.get('global', 0.0) for each in seen] == pytest.approx([0.0, 0.2928932, 1.0, 1.7071068, 2.0])


@pytest.mark.parametrize('keyword', ['local_weight', 'global_weight', 'target_temperature', 'temperature'])
def test_a_schedule_without_an_epoch_says_which_line_is_missing(keyword):
    value = {'start': 1.0, 'end': 0.5}
    loss = TRGLoss(**ENDS, global_targets='teacher', **{keyword: value})
    with pytest.raises(ValueError, match=f'expected the schedule `{keyword}` to be told its epoch.*pre_epoch_process'):
        loss(*features(*maps()))


REFUSED = {
    'unequal supports': (
        {'row_distribution': 'proportional'},
        "expected `edges` to be 'teacher' or 'union' with `row_distribution` 'proportional', got 'own'",
    ),
    'in and gather': ({'edge_direction': 'in', 'gather': True}, "`edge_direction` to be 'out' with `gather: true`"),
    'no soft targets': ({'target_temperature': 0.1}, "`global_targets` to be 'teacher' with a `target_temperature`"),
    'negative queue': ({'queue_size': -1}, 'expected `queue_size` to be an integer >= 0'),
    'negative weight': ({'local_weight': -1}, r'`local_weight` to be a number >= 0 or {start, end, schedule}, got -1'),
    'exponential to 0': (
        {'local_weight': {'start': 1.0, 'end': 0.0, 'schedule': 'exponential'}},
        "`start` and `end` of 'exponential' to be > 0",
    ),
    'until beyond the end': (
        {'global_weight': FALLING | {'until': 1.5}},
        'expected `until` to be a number > 0, at mos',
    ),
    'the former name': ({'affinity_support': 'neighbors'}, 'got `affinity_support`; it is now `row_distribution`'),
}


@pytest.mark.parametrize(('options', 'message'), REFUSED.values(), ids=REFUSED)
def test_what_has_no_meaning_is_refused_with_the_line_to_change(options, message):
    with pytest.raises(ValueError, match=f'{message}.*`kwargs:` of `TRGLoss`'):
        TRGLoss(**ENDS, **options)


def facts_of(images=16, **options):
    loss = TRGLoss(**ENDS, tokens_per_image=None, num_neighbors=options.pop('num_neighbors', 4), **options)
    torch.manual_seed(0)
    return loss.facts('trg', *features(*maps(images, 8)), images)


def test_the_share_of_the_gradient_on_the_edges_of_the_teacher():
    assert facts_of(edges='teacher').on_teacher_edges['local'] == pytest.approx(1)
    shares = {edges: facts_of(edges=edges).on_teacher_edges for edges in ('own', 'union')}
    assert 0 < shares['own']['local'] < shares['union']['local'] < 1
    assert 0 < shares['own']['global'] < 0.5
    assert "of the gradient on the teacher's edges: local 100.0%, global" in facts_of(edges='teacher').line(16)


def test_the_line_of_a_complete_graph_and_of_a_queue():
    line = facts_of(num_neighbors=None, queue_size=1024).line(16)
    assert 'k = all, ' in line
    assert 'queue of 1024 32.0 kB' in line


@pytest.mark.parametrize('options', [{}, {'num_neighbors': None}, {'edges': 'teacher'}], ids=str)
@pytest.mark.parametrize('distribution', ['softmax_edges', 'proportional'])
def test_a_graph_of_one_token_has_nothing_on_the_edges_of_the_teacher(options, distribution):
    options = {'edges': 'union', **options, 'row_distribution': distribution}
    loss = TRGLoss(**ENDS, **{'tokens_per_image': 1, **options})
    assert 'M = 1 (' in loss.facts('trg', *features(*maps(1)), 1).line(1)


@pytest.mark.parametrize(
    ('options', 'kind'),
    [
        ({'edges': 'teacher', 'row_distribution': 'proportional', 'sigma': 1e-3}, 'sharp_rows'),
        ({'edges': 'union', 'row_distribution': 'proportional', 'sigma': 1e3}, 'even_rows'),
        ({'global_targets': 'teacher', 'target_temperature': 1e-3}, 'sharp_targets'),
        ({'num_neighbors': 64}, 'too_many_neighbors'),
        ({'num_neighbors': None}, None),
        ({'edges': 'teacher', 'row_distribution': 'proportional'}, None),
        ({'num_neighbors': None, 'row_distribution': 'proportional'}, None),
        ({'global_targets': 'teacher'}, None),
    ],
    ids=str,
)
def test_hints_fit_the_options(options, kind):
    assert [hint.kind for hint in facts_of(**options).hints(teacher_is_trained=True)] == [kind] * (kind is not None)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('c++') is None, reason='the default compiler of torch needs a C++ compiler')
def test_compiled_formulas_are_the_same_and_a_last_batch_compiles_them_once_more():
    torch.compiler.reset()
    counters.clear()
    options = {'tokens_per_image': None, 'num_neighbors': 3, 'edges': 'union', 'row_distribution': 'proportional'}
    options |= {'temperature': {'start': 0.5, 'end': 0.1}}
    eager, compiled = TRGLoss(**ENDS, **options), TRGLoss(**ENDS, **options, compile=True)
    graphs = []
    for epoch in range(4):
        for images in (6, 6, 5):
            student, teacher = maps(images)
            student.requires_grad_()
            for loss in (eager, compiled):
                loss.start_epoch(epoch, 4)
            expected, value = (loss(*features(student, teacher)) for loss in (eager, compiled))
            assert_close(value, expected, rtol=1e-5)
            wanted = gradient_of(expected, student)
            assert_close(gradient_of(value, student), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
        graphs.append(counters['stats']['unique_graphs'])
    copy.deepcopy(compiled)
    if COUNTED:
        assert graphs[0] == 4, 'each of two formulas, for the first batch and for a batch of any size'
        assert graphs[1] == graphs[3] <= 6, 'and once more for a temperature that moves'
        assert counters['graph_break'] == {}


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_with_the_line_to_change(monkeypatch, tmp_path):
    torch.compiler.reset()
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    with (
        torch._inductor.config.patch({'cpp.cxx': ('/nonexistent',)}),
        pytest.raises(ValueError, match=r'compile: true` of `TokenContextualLoss`.*C\+\+.*write `compile: false`'),
    ):
        TokenContextualLoss(**ENDS, compile=True)(*features(*maps()))
