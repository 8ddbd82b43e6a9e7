"""The losses on a CUDA device: those of float64 on the CPU, in every precision, in blocks, in degenerate cases."""

import pytest
import torch
from helpers import assert_all_finite, assert_close, gradient_of
from torch import distributed as dist

from trg_torchdistill import _blocks, contextual_loss, global_relationship_loss, local_preserving_loss
from trg_torchdistill.gather import Share, _Gather
from trg_torchdistill.graph import edge_square_distances, nearest_neighbors
from trg_torchdistill.tokens import normalize

pytestmark = pytest.mark.gpu

LOSSES = {
    'local': (local_preserving_loss, (600, 48), {}),
    'local, student first': (local_preserving_loss, (600, 48), {'kl_direction': 'student_teacher'}),
    'local, softmax_edges': (
        local_preserving_loss,
        (600, 48),
        {'row_distribution': 'softmax_edges', 'reduction': 'mean'},
    ),
    'local, raw tokens': (local_preserving_loss, (600, 48), {'normalize_tokens': False, 'sigma': 40.0}),
    'global': (global_relationship_loss, (600, 48), {}),
    'global, sum': (global_relationship_loss, (600, 48), {'reduction': 'sum', 'temperature': 0.5}),
    'contextual': (contextual_loss, (8, 49, 48), {}),
    'contextual, unit': (contextual_loss, (8, 49, 48), {'normalize_tokens': True, 'reduction': 'batchmean'}),
}
# dtype -> relative error of the loss, of the gradient of a local term, of another gradient: those of the CPU's tests
TOLERANCES = {
    torch.float64: (1e-9, 1e-9, 1e-9),
    torch.float32: (1e-5, 1e-4, 1e-4),
    torch.bfloat16: (5e-3, 0.12, 0.02),
    torch.float16: (2e-3, 0.08, 0.02),
}


def make_tokens(shape, dtype=torch.float64):
    """Teacher tokens in groups, and student tokens near them, rounded to a dtype; as float64 on the CPU."""
    teacher = torch.randn(shape, dtype=torch.float64)
    student = teacher + 0.5 * torch.randn(shape, dtype=torch.float64)
    return [tokens.to(dtype).double() for tokens in (student, teacher)]


def on_gpu(tokens, dtype):
    return tokens.to('cuda', dtype, copy=True)


def relative_error(found, wanted):
    return float((found.detach().cpu().double() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('name', LOSSES)
def test_value_and_gradient_are_those_of_the_cpu(name, dtype):
    """The rounded features are the same on both sides, so that what differs is the computation, and a swapped tie."""
    loss, shape, options = LOSSES[name]
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    student, teacher = make_tokens(shape, dtype)
    own = on_gpu(student, dtype).requires_grad_()
    student.requires_grad_()
    wanted, found = scale * loss(student, teacher, **options), scale * loss(own, on_gpu(teacher, dtype), **options)
    assert found.is_cuda
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    value_error, local_error, other_error = TOLERANCES[dtype]
    assert relative_error(found, wanted) < value_error
    gradient = gradient_of(found, own)
    assert gradient.dtype == dtype
    error = relative_error(gradient, gradient_of(wanted, student))
    assert error < (local_error if name.startswith('local') else other_error)


@pytest.mark.parametrize('name', LOSSES)
def test_autocast_does_not_reach_the_formulas(name):
    loss, shape, options = LOSSES[name]
    student, teacher = (on_gpu(tokens, torch.float32) for tokens in make_tokens(shape))
    with torch.autocast('cuda', torch.bfloat16):
        found = loss(student, teacher, **options)
    assert torch.equal(found, loss(student, teacher, **options))


@pytest.mark.parametrize('name', LOSSES)
def test_blocks_change_nothing(name, monkeypatch):
    loss, shape, options = LOSSES[name]
    student, teacher = (on_gpu(tokens, torch.float64) for tokens in make_tokens(shape))
    student.requires_grad_()
    whole = loss(student, teacher, **options)
    gradient = gradient_of(whole, student)
    monkeypatch.setattr(_blocks, 'GPU_BLOCK_BYTES', 7 * 8 * 48 * 8)
    blocks = loss(student, teacher, **options)
    assert_close(blocks.cpu(), whole.cpu(), rtol=1e-12)
    assert_close(gradient_of(blocks, student).cpu(), gradient.cpu(), rtol=1e-9, atol=1e-12)


def test_a_graph_of_more_than_one_block_of_the_real_budget():
    """6,000 tokens: a row of scores is 24 kB, so 64 MiB hold 2,796 rows."""
    student, teacher = make_tokens((6000, 32), torch.float32)
    own = on_gpu(student, torch.float32).requires_grad_()
    student.requires_grad_()
    for loss in (local_preserving_loss, global_relationship_loss):
        wanted, found = loss(student, teacher), loss(own, on_gpu(teacher, torch.float32))
        assert relative_error(found, wanted) < 1e-5
        assert relative_error(gradient_of(found, own), gradient_of(wanted, student)) < 1e-3


@pytest.mark.parametrize('count', [1, 2, 9, 500])
def test_neighbors_are_those_of_the_cpu(count):
    tokens = torch.randn(count, 16, dtype=torch.float64)
    found = nearest_neighbors(tokens.cuda(), 8).cpu()
    assert torch.equal(found.sort(1).values, nearest_neighbors(tokens, 8).sort(1).values)


def test_edges_pass_gradcheck():
    tokens = torch.randn(12, 5, dtype=torch.float64, device='cuda', requires_grad=True)
    neighbors = nearest_neighbors(tokens, 3)
    # Several threads add to the gradient of one token in any order.
    assert torch.autograd.gradcheck(lambda values: edge_square_distances(values, neighbors), tokens, nondet_tol=1e-12)


DEGENERATE = {
    'zeros': lambda shape: torch.zeros(shape),
    'constant': lambda shape: torch.full(shape, 3.0),
    'duplicates': lambda shape: torch.randn(shape[0] // 2, *shape[1:]).repeat(2, *[1] * (len(shape) - 1)),
    'tiny': lambda shape: 1e-30 * torch.randn(shape),
    'large': lambda shape: 1e4 * torch.randn(shape),
}


@pytest.mark.parametrize('case', DEGENERATE)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('name', ['local', 'local, softmax_edges', 'global', 'contextual', 'contextual, unit'])
def test_degenerate_features_give_finite_losses_and_gradients(name, dtype, case):
    loss, shape, options = LOSSES[name]
    student, teacher = (on_gpu(DEGENERATE[case](shape), dtype) for _ in range(2))
    student.requires_grad_()
    found = loss(student, teacher, **options)
    assert_all_finite(found, gradient_of(found, student))


@pytest.mark.parametrize('loss', [local_preserving_loss, global_relationship_loss])
def test_a_single_token(loss):
    student = torch.randn(1, 8, device='cuda', requires_grad=True)
    found = loss(student, torch.randn(1, 8, device='cuda'))
    assert_close(found.cpu(), 0.0, atol=1e-6)
    assert_all_finite(gradient_of(found, student))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('loss', [local_preserving_loss, global_relationship_loss])
def test_a_nan_that_comes_in_is_seen(loss, bad):
    student, teacher = torch.randn(64, 8, device='cuda'), torch.randn(64, 8, device='cuda')
    student[5, 3] = bad
    assert not bool(loss(student, teacher).isfinite())


def test_a_normalised_token_has_length_one():
    tokens = 1e3 * torch.randn(64, 8, device='cuda')
    assert_close(normalize(tokens).norm(dim=1).cpu(), torch.ones(64), rtol=1e-6)


def test_tokens_are_gathered_by_nccl(tmp_path):
    """One GPU is one process: what goes through nccl comes back as it was, and so does its gradient."""
    dist.init_process_group('nccl', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1)
    try:
        tokens = torch.randn(6, 4, device='cuda', requires_grad=True)
        gathered = _Gather.apply(tokens, Share((6,)))
        weights = torch.randn(6, 4, device='cuda')
        assert torch.equal(gathered, tokens)
        assert torch.equal(gradient_of((gathered * weights).sum(), tokens), weights)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['local', 'global', 'contextual'])
def test_compiled_losses_are_the_same(name):
    loss, shape, options = LOSSES[name]
    student, teacher = (on_gpu(tokens, torch.float32) for tokens in make_tokens(shape))
    student.requires_grad_()
    torch.compiler.reset()
    wanted, found = loss(student, teacher, **options), torch.compile(loss)(student, teacher, **options)
    assert_close(found.cpu(), wanted.cpu(), rtol=1e-5)
    assert relative_error(gradient_of(found, student), gradient_of(wanted, student).cpu().double()) < 1e-3
