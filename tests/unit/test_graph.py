"""Nearest neighbours, edge distances, Gaussian affinity and context similarity against naive loops."""

import math

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close, assert_not_finite, assert_same_sets

from trg_torchdistill import _blocks
from trg_torchdistill.context import context_similarity
from trg_torchdistill.graph import edge_square_distances, gaussian_affinity, nearest_neighbors


def _tokens(num_tokens, width, dtype=torch.float64):
    return torch.randn(num_tokens, width, dtype=dtype)


def _assert_nearest(tokens, neighbors, rtol=1e-9):
    """Also with ties: nobody is its own neighbour, nobody is listed twice, and the distances are the k smallest."""
    tokens = tokens.double()
    for i, row in enumerate(neighbors.tolist()):
        assert i not in row, f'token {i} is its own neighbour'
        assert len(set(row)) == len(row), f'token {i} has a neighbour twice'
        others = sorted(float(reference.square_distance(tokens[i], tokens[j])) for j in range(len(tokens)) if j != i)
        found = sorted(float(reference.square_distance(tokens[i], tokens[j])) for j in row)
        assert_close(found, others[: len(row)], rtol=rtol)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize(('num_tokens', 'width', 'k'), [(12, 4, 3), (40, 6, 8), (7, 3, 6), (5, 1, 1), (2, 3, 1)])
def test_neighbors_are_the_nearest_others(num_tokens, width, k, dtype):
    tokens = _tokens(num_tokens, width, dtype)
    neighbors = nearest_neighbors(tokens, k)
    assert neighbors.shape == (num_tokens, k)
    assert neighbors.dtype == torch.long
    assert_same_sets(neighbors, reference.neighbor_sets(tokens, k))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('k', [4, 5, 100])
def test_more_neighbors_than_tokens_are_clipped(k):
    neighbors = nearest_neighbors(_tokens(5, 3), k)
    assert_same_sets(neighbors, [set(range(5)) - {i} for i in range(5)])


@pytest.mark.filterwarnings('ignore')
def test_a_single_token_has_no_neighbor():
    assert nearest_neighbors(_tokens(1, 3), 4).shape == (1, 0)


@pytest.mark.parametrize('block_bytes', [1, 8, 700, 5000, 10**9])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_the_size_of_a_block_does_not_change_the_neighbors(block_bytes, dtype, monkeypatch):
    monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    tokens = _tokens(37, 5, dtype)
    neighbors = nearest_neighbors(tokens, 6)
    assert_same_sets(neighbors, reference.neighbor_sets(tokens, 6))


def test_duplicates_are_each_others_neighbors_but_not_their_own():
    tokens = _tokens(6, 4).repeat(3, 1)
    _assert_nearest(tokens, nearest_neighbors(tokens, 2))
    for i, row in enumerate(nearest_neighbors(tokens, 2).tolist()):
        assert set(row) == {j for j in range(18) if j % 6 == i % 6} - {i}


@pytest.mark.parametrize('tokens', [torch.zeros(9, 4), torch.ones(9, 4) * 1e3, torch.full((9, 4), 0.1)])
def test_constant_features_still_have_distinct_other_neighbors(tokens):
    _assert_nearest(tokens, nearest_neighbors(tokens, 5))


@pytest.mark.parametrize('offset', [1e3, -1e3, 3e3])
def test_a_large_common_offset_in_float32_does_not_hide_the_neighbors(offset):
    tokens = _tokens(64, 16, torch.float32) + offset
    assert_same_sets(nearest_neighbors(tokens, 5), reference.neighbor_sets(tokens, 5))


@pytest.mark.parametrize(('dtype', 'distance'), [(torch.float32, 30), (torch.float64, 1e4)])
def test_far_away_images_do_not_hide_the_neighbors(dtype, distance):
    """Two groups far apart stay far from their common mean; the documented limit is eps * distance^2."""
    tokens = _tokens(64, 16, dtype)
    tokens[32:] += distance
    assert_same_sets(nearest_neighbors(tokens, 5), reference.neighbor_sets(tokens, 5))


def test_neighbors_ignore_memory_layout_and_gradients():
    tokens = _tokens(4, 20).requires_grad_()
    neighbors = nearest_neighbors(tokens.T, 3)
    assert not neighbors.requires_grad
    assert_same_sets(neighbors, reference.neighbor_sets(tokens.T, 3))


@pytest.mark.parametrize(('k', 'error'), [(0, ValueError), (-1, ValueError), (2.5, TypeError), ('3', TypeError)])
def test_a_neighbor_count_that_is_no_positive_integer_is_an_error(k, error):
    with pytest.raises(error, match=r'expected `num_neighbors` to be .*, got'):
        nearest_neighbors(_tokens(5, 3), k)


def _edges(num_tokens, k):
    return torch.stack([torch.randperm(num_tokens - 1)[:k] for _ in range(num_tokens)]) + 1


@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(('num_tokens', 'k'), [(9, 4), (150, 3)])
def test_edge_distances_and_gradients_are_those_of_the_loop(num_tokens, k, dtype, rtol):
    tokens, edges = _tokens(num_tokens, 3, dtype).requires_grad_(), _edges(num_tokens, k)
    double = tokens.detach().double().requires_grad_()
    expected = torch.stack(
        [
            torch.stack([reference.square_distance(double[i], double[j]) for j in row])
            for i, row in enumerate(edges.tolist())
        ]
    )
    actual = edge_square_distances(tokens, edges)
    assert actual.dtype == dtype
    assert_close(actual, expected, rtol=rtol)
    weights = torch.rand(num_tokens, k, dtype=torch.float64)
    (actual * weights.to(dtype)).sum().backward()
    (expected * weights).sum().backward()
    assert_close(tokens.grad, double.grad, rtol=rtol, atol=10 * rtol)


def test_gradcheck_of_edge_distances_with_self_loops_duplicates_and_repeated_edges():
    tokens = _tokens(6, 3)
    tokens[4] = tokens[1]
    edges = torch.tensor([[1, 2], [4, 1], [3, 3], [0, 5], [1, 4], [5, 0]])
    assert torch.autograd.gradcheck(lambda x: edge_square_distances(x, edges), (tokens.requires_grad_(),))


def test_edge_distances_of_duplicates_are_zero_with_zero_gradient():
    tokens = torch.full((5, 4), 7.3, requires_grad=True)
    distances = edge_square_distances(tokens, torch.tensor([[1, 2], [2, 3], [3, 4], [4, 0], [0, 1]]))
    distances.sum().backward()
    assert_close(distances, torch.zeros(5, 2), rtol=0, atol=0)
    assert_close(tokens.grad, torch.zeros(5, 4), rtol=0, atol=0)


def test_edge_distances_do_not_cancel_far_from_the_origin():
    tokens, edges = _tokens(20, 8, torch.float32) + 1e3, _edges(20, 4)
    expected = edge_square_distances(tokens.double(), edges)
    assert_close(edge_square_distances(tokens, edges), expected, rtol=1e-5)


def test_edge_distances_without_edges_still_backpropagate():
    tokens = _tokens(3, 2).requires_grad_()
    distances = edge_square_distances(tokens, torch.zeros(3, 0, dtype=torch.long))
    assert distances.shape == (3, 0)
    distances.sum().backward()
    assert_close(tokens.grad, torch.zeros(3, 2), rtol=0, atol=0)


def test_edge_distances_of_a_non_contiguous_tensor():
    tokens, edges = _tokens(3, 9).T, _edges(9, 4)
    assert_close(edge_square_distances(tokens, edges), edge_square_distances(tokens.contiguous(), edges))
    assert torch.autograd.gradcheck(lambda x: edge_square_distances(x.T, edges), (_tokens(3, 9).requires_grad_(),))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_edge_distances_show_a_bad_token(bad):
    tokens = _tokens(4, 3)
    tokens[1, 0] = bad
    assert_not_finite(edge_square_distances(tokens, torch.tensor([[1], [2], [0], [0]])))


def test_affinity_divides_by_two_sigma_and_not_by_two_sigma_squared():
    square_distances = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    expected = [[1.0, math.exp(-1.0 / 0.5), math.exp(-2.0 / 0.5)]]
    assert_close(gaussian_affinity(square_distances, 0.25), expected)
    assert_close(gaussian_affinity(square_distances, 3.0), [[1.0, math.exp(-1 / 6), math.exp(-1 / 3)]])


def test_affinity_of_a_huge_distance_is_zero_with_a_finite_gradient():
    square_distances = torch.tensor([1e4, 1e30], requires_grad=True)
    affinity = gaussian_affinity(square_distances, 0.5)
    affinity.sum().backward()
    assert_close(affinity, [0.0, 0.0], rtol=0, atol=0)
    assert_all_finite(square_distances.grad)


@pytest.mark.parametrize('temperature', [None, 0.1, 1.0, 7.0])
@pytest.mark.parametrize('shape', [(2, 5, 4), (1, 1, 3), (3, 2, 1)])
def test_context_similarity_is_the_reference(shape, temperature):
    tokens = torch.randn(shape, dtype=torch.float64)
    expected = torch.stack([reference.context_matrix(image, temperature) for image in tokens])
    assert_close(context_similarity(tokens, temperature), expected)
    assert_close(context_similarity(tokens, temperature).sum(dim=-1), torch.ones(shape[:2]))


def test_context_similarity_scales_by_the_root_of_the_width():
    tokens = torch.tensor([[[2.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    first = math.exp(4 / 2) / (math.exp(4 / 2) + math.exp(2 / 2))
    second = math.exp(2 / 2) / (math.exp(2 / 2) + math.exp(1 / 2))
    assert_close(context_similarity(tokens), [[[first, 1 - first], [second, 1 - second]]])


def test_gradcheck_of_context_similarity():
    tokens = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(context_similarity, (tokens,))
