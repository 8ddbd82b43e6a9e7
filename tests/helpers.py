"""Comparisons that assert (they never return a bool, so a forgotten `assert` cannot hide a failure) and a launcher."""

import datetime
import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = datetime.timedelta(seconds=60)


def _double(value):
    return value.detach().double() if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)


def assert_close(actual, expected, rtol=1e-9, atol=1e-12):
    """Compare a tensor (or number) with float64 expectations: same shape, each |a - e| <= atol + rtol * |e|.

    The dtype may differ (float32 results are compared with float64 references), NaN equals nothing, and an infinity
    equals only the same infinity.
    """
    actual, expected = _double(actual), _double(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f'expected shape {list(expected.shape)}, got {list(actual.shape)}')
    close = (actual - expected).abs() <= atol + rtol * expected.abs()
    close = (close & expected.isfinite()) | (actual == expected)
    if not bool(close.all()):
        index = (~close).nonzero()[0].tolist()
        found, wanted = float(actual[tuple(index)]), float(expected[tuple(index)])
        raise AssertionError(
            f'{int((~close).sum())} of {close.numel()} values differ; at {index}: expected {wanted!r}, got {found!r}, '
            f'difference {abs(found - wanted):.3e} (rtol {rtol:.1e}, atol {atol:.1e})'
        )


def assert_all_finite(*tensors):
    """Every tensor is there (not None) and free of NaN and Inf."""
    for position, tensor in enumerate(tensors):
        if tensor is None:
            raise AssertionError(f'expected tensor {position} to be a tensor, got None')
        if not bool(tensor.isfinite().all()):
            raise AssertionError(f'expected tensor {position} to be finite, got {tensor}')


def assert_not_finite(tensor):
    """NaN or Inf is visible in the result."""
    if bool(tensor.isfinite().all()):
        raise AssertionError(f'expected a NaN or an Inf, got {tensor}')


def assert_same_sets(rows, sets):
    """Row i of an index tensor holds exactly the members of sets[i], each once."""
    rows = rows.tolist()
    if len(rows) != len(sets):
        raise AssertionError(f'expected {len(sets)} rows, got {len(rows)}')
    for i, (row, members) in enumerate(zip(rows, sets, strict=True)):
        if sorted(row) != sorted(members):
            raise AssertionError(f'row {i}: expected {sorted(members)}, got {sorted(row)}')


def gradient_of(loss, tensor):
    """Gradient of a scalar with respect to a leaf, as a fresh tensor (never None)."""
    (gradient,) = torch.autograd.grad(loss, tensor)
    return gradient


def _worker(rank, function, folder, num_processes, args):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=num_processes, timeout=TIMEOUT
    )
    torch.save(function(rank, *args), f'{folder}/result_{rank}.pt')
    dist.barrier()
    # No destroy_process_group: with torch 2.5 it can wait, holding the GIL, for a thread that waits for the GIL.
    os._exit(0)


def run_processes(num_processes, function, tmp_path, *args):
    """Run `function(rank, *args)` in CPU processes joined by gloo; return their results, rank 0 first.

    The function must be at the top level of its module. An exception in any process is raised here, with its
    traceback in the message.
    """
    worker_args = (function, str(tmp_path), num_processes, args)
    mp.start_processes(_worker, args=worker_args, nprocs=num_processes, start_method='spawn')
    return [torch.load(f'{tmp_path}/result_{rank}.pt', weights_only=False) for rank in range(num_processes)]
