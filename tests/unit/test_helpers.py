"""The helpers themselves: a wrong value must fail, and the reference must be right on cases done by hand."""

import math

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close, assert_not_finite, assert_same_sets, run_processes

NAN, INF = float('nan'), float('inf')


def test_equal_values_pass_whatever_the_dtype():
    assert_close(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64))
    assert_close(torch.tensor([INF, -INF]), torch.tensor([INF, -INF]))
    assert_close(1.0 + 5e-6, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ('actual', 'expected'),
    [
        (1.0 + 1e-8, 1.0),
        (0.0, 1e-6),
        (NAN, 1.0),
        (NAN, NAN),
        (1.0, NAN),
        (INF, 1.0),
        (1.0, INF),
        (INF, -INF),
        ([1.0, 2.0], [1.0, 3.0]),
        ([1.0], 1.0),
        ([1.0, 1.0], [1.0]),
    ],
)
def test_assert_close_fails_on_a_wrong_value_or_shape(actual, expected):
    with pytest.raises(AssertionError, match='expected'):
        assert_close(torch.tensor(actual, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def test_finite_checks_fail_on_the_opposite():
    assert_all_finite(torch.ones(2))
    assert_not_finite(torch.tensor([1.0, NAN]))
    for wrong in (torch.tensor([1.0, NAN]), torch.tensor(INF), None):
        with pytest.raises(AssertionError):
            assert_all_finite(torch.ones(2), wrong)
    with pytest.raises(AssertionError):
        assert_not_finite(torch.ones(2))


@pytest.mark.parametrize('rows', [[[1, 2], [0, 2]], [[2, 1]], [[1, 1], [0, 3]], [[1], [0]], [[1, 2, 2], [0, 3, 3]]])
def test_set_check_fails_on_wrong_members_counts_and_repeats(rows):
    with pytest.raises(AssertionError, match='row'):
        assert_same_sets(torch.tensor(rows), [{1, 2}, {0, 3}])


def test_set_check_ignores_the_order_in_a_row():
    assert_same_sets(torch.tensor([[2, 1], [3, 0]]), [{1, 2}, {0, 3}])


def test_reference_local_loss_by_hand():
    """Three points on a line, k = 1: student neighbours 0-1, 1-0, 2-1; teacher neighbours 0-1, 1-2, 2-1."""
    student = torch.tensor([[0.0], [1.0], [3.0]])
    teacher = torch.tensor([[0.0], [2.0], [3.0]])

    def kl(p, q):
        p, q = [math.exp(x) for x in p], [math.exp(x) for x in q]
        return sum(a / sum(p) * math.log(a / sum(p) * sum(q) / b) for a, b in zip(p, q, strict=True))

    def affinity(distance):
        return math.exp(-(distance**2) / (2 * 0.7))

    student_rows = [[0, affinity(1), 0], [affinity(1), 0, 0], [0, affinity(2), 0]]
    teacher_rows = [[0, affinity(2), 0], [0, 0, affinity(1)], [0, affinity(1), 0]]
    expected = sum(kl(t, s) for s, t in zip(student_rows, teacher_rows, strict=True))
    options = {'num_neighbors': 1, 'sigma': 0.7, 'normalize_tokens': False}
    assert_close(reference.local_preserving_loss(student, teacher, **options), expected)
    union = kl([0, affinity(1)], [affinity(1), 0])  # only row 1 has more than one candidate
    assert_close(reference.local_preserving_loss(student, teacher, row_distribution='softmax_edges', **options), union)


def test_reference_global_and_contextual_by_hand():
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert_close(reference.global_relationship_loss(student, teacher), math.log(2))
    teacher = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert_close(reference.global_relationship_loss(student, teacher, 0.5), math.log(1 + math.exp(2)))
    flat, peaked = torch.zeros(1, 2, 4), torch.tensor([[[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    weight = math.exp(2) / (math.exp(2) + 1)  # 2 * 2 / sqrt(4) = 2
    assert_close(reference.contextual_loss(peaked, flat), 2 * (weight - 0.5) ** 2 / 4)
    assert_close(reference.contextual_loss(peaked, flat, reduction='batchmean'), 2 * (weight - 0.5) ** 2)


def _second_rank_fails(rank):
    if rank == 1:
        raise RuntimeError('rank one gives up')


@pytest.mark.slow
def test_a_failing_process_fails_the_test(tmp_path):
    with pytest.raises(Exception, match='rank one gives up'):
        run_processes(2, _second_rank_fails, tmp_path)
