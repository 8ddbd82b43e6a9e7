"""Time and memory of the three losses against the bare matrix products and dense references: B1-B4 and memory.

python benchmarks/losses.py infonce|knn|local|contextual|memory [--json FILE]

infonce (B1): the global term, forward and backward to the student, against a dense cross-entropy and the two products
    that the equation needs: the logits Q K^T, and P K in the backward pass, 2 * M * M * D flops each.
knn (B2): the neighbour search against one product X X^T and one top-k of its M x M result, each measured alone.
local (B3): the local term, forward and backward, against the same loss with M x M matrices (distances by `cdist` or
    from the Gram matrix, gradient by autograd) and against itself with a naive gather of edges; then the edges alone.
contextual (B4): the contextual term, forward and backward, against its dense formula and its four batched products.
memory: growth of the peak of memory by one forward and backward of each term, each in a fresh process.

Products run into memory that exists already, so that they are a lower bound. All in float32. On a GPU the bars are
others: the global term against the dense one from M = 4096 on, the search against its product at D = 512.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from functools import partial
from typing import Any
from unittest import mock

import torch
from _references import NEIGHBORS, SIGMA, dense_local, gathered_square_distances
from _timing import (
    MIB,
    Samples,
    add_bar,
    describe_bar,
    finish,
    fit_exponent,
    interleave,
    make_parser,
    make_row,
    parse_sizes,
    peak_bytes,
    print_row,
    reset_peak,
    use_clock,
)
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, normalize

from trg_torchdistill import contextual_loss, functional, global_relationship_loss, local_preserving_loss
from trg_torchdistill.graph import edge_square_distances, nearest_neighbors

TEMPERATURE = 0.1
GRID = [(1024, 64), (1024, 128), (1024, 512), (4096, 64), (4096, 128), (4096, 256), (4096, 512)]
SIZES = {
    'infonce': GRID,
    'knn': GRID,
    'local': [(1024, 128), (2048, 512), (4096, 128), (4096, 512)],
    'contextual': [(64, 49, 512), (64, 64, 512), (64, 196, 512)],
    'memory': [(1024,), (2048,), (4096,), (8192,), (16384,), (32768,), (65536,)],
}
SMOKE = {'infonce': [(64, 16)], 'knn': [(64, 16)], 'local': [(64, 16)], 'contextual': [(4, 9, 16)]}
SMOKE['memory'] = [(128,), (256,)]
OPTIONS = {
    'local, teacher': {'edges': 'teacher'},
    'local, union': {'edges': 'union', 'row_distribution': 'proportional'},
    'local, in': {'edges': 'teacher', 'edge_direction': 'in', 'row_distribution': 'softmax_edges'},
    'local, complete': {'num_neighbors': None, 'row_distribution': 'proportional'},
    'global, teacher': {'targets': 'teacher'},
}
TERMS = ('local', 'global', 'contextual', *OPTIONS, 'dense local')
REPEATS = {'infonce': 15, 'knn': 15, 'local': 9, 'contextual': 15}
MEMORY_WIDTH, MEMORY_CELLS, DENSE_UP_TO, FIT_FROM = 128, 64, 8192, 8192


def make_tokens(*shape: int, device: str = 'cpu') -> tuple[Tensor, Tensor]:
    """Student tokens, which want a gradient, and teacher tokens near them, as after some training."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(*shape, generator=generator)
    student = teacher + 0.5 * torch.randn(*shape, generator=generator)
    return student.to(device).requires_grad_(), teacher.to(device)


def grad(loss: Tensor, student: Tensor) -> Tensor:
    """The gradient to the student."""
    return torch.autograd.grad(loss, student)[0]


def infonce(count: int, width: int, options: Namespace) -> list[dict[str, Any]]:
    """B1."""
    student, teacher = make_tokens(count, width, device=options.device)
    labels = torch.arange(count, device=options.device)
    queries, keys = normalize(student.detach()) / TEMPERATURE, normalize(teacher)
    logits, gradient = torch.empty(count, count, device=options.device), torch.empty_like(queries)

    def dense() -> Tensor:
        scores = normalize(student) / TEMPERATURE @ normalize(teacher).T
        return grad(cross_entropy(scores, labels), student)

    def products() -> None:
        torch.mm(queries, keys.T, out=logits)
        torch.mm(logits, keys, out=gradient)

    peers = {
        'global_relationship_loss': lambda: grad(global_relationship_loss(student, teacher, TEMPERATURE), student),
        'dense cross-entropy': dense,
        'two products': products,
    }
    samples = interleave(peers, options.repeats, options.device, options.shortest)
    row = make_row({'M': count, 'D': width}, samples, 'two products', flops=4 * count * count * width)
    ratio, dense_ratio = (row['peers'][name]['ratio']['median'] for name in list(peers)[:2])
    if options.device == 'cpu':
        add_bar(row, f'InfoNCE / two products at M={count}, D={width}', ratio, 1.1 if width >= 512 else 1.35)
    elif count >= 4096:
        add_bar(row, f'InfoNCE / dense at M={count}, D={width}', ratio / dense_ratio, 1.0)
    return [row]


def knn(count: int, width: int, options: Namespace) -> list[dict[str, Any]]:
    """B2."""
    _, tokens = make_tokens(count, width, device=options.device)
    tokens = normalize(tokens)
    scores = -(tokens @ tokens.T).fill_diagonal_(-1)
    out = torch.empty_like(scores)
    peers = {
        'nearest_neighbors': lambda: nearest_neighbors(tokens, NEIGHBORS),
        'product': lambda: torch.mm(tokens, tokens.T, out=out),
        'topk': lambda: scores.topk(NEIGHBORS, dim=1, largest=False, sorted=False),
        'cdist, topk': lambda: torch.cdist(tokens, tokens).topk(NEIGHBORS + 1, dim=1, largest=False, sorted=False),
    }
    samples = interleave(peers, options.repeats, options.device, options.shortest)
    both = 'product + topk'
    samples[both] = [product + topk for product, topk in zip(samples['product'], samples['topk'], strict=True)]
    row = make_row({'M': count, 'D': width, 'k': NEIGHBORS}, samples, both, flops=2 * count * count * width)
    ratio, product_ratio = (row['peers'][name]['ratio']['median'] for name in list(peers)[:2])
    if options.device == 'cpu':
        add_bar(row, f'kNN / ({both}) at M={count}, D={width}', ratio, 1.25)
    elif width >= 512:
        add_bar(row, f'kNN / product at M={count}, D={width}', ratio / product_ratio, 3.0)
    return [row]


def local(count: int, width: int, options: Namespace) -> list[dict[str, Any]]:
    """B3: the whole term, then its edges alone."""
    student, teacher = make_tokens(count, width, device=options.device)
    tokens = normalize(student.detach()).requires_grad_()
    neighbors = nearest_neighbors(tokens, NEIGHBORS)
    plain, out = tokens.detach(), torch.empty(count, count, device=options.device)

    def ours() -> Tensor:
        return grad(local_preserving_loss(student, teacher, NEIGHBORS, SIGMA), student)

    def naive() -> Tensor:
        with mock.patch.object(functional, 'edge_square_distances', gathered_square_distances):
            return ours()

    expected = ours()
    for other in (grad(dense_local(student, teacher, gram), student) for gram in (False, True)):
        # Not closer: where two distances are equal but for rounding, the selection may differ.
        assert (other - expected).norm() < 0.05 * expected.norm()
    whole = {
        'local_preserving_loss': ours,
        'dense, cdist': lambda: grad(dense_local(student, teacher, False), student),
        'dense, Gram': lambda: grad(dense_local(student, teacher, True), student),
        'same search, naive edges': naive,
        'one product': lambda: torch.mm(plain, plain.T, out=out),
    }
    edges = {
        'edge_square_distances': lambda: grad(edge_square_distances(tokens, neighbors).sum(), tokens),
        'naive edges': lambda: grad(gathered_square_distances(tokens, neighbors).sum(), tokens),
        'one product': lambda: torch.mm(plain, plain.T, out=out),
    }
    rows = []
    for part, peers in (('whole', whole), ('edges', edges)):
        reference = next(iter(peers))
        samples: Samples = interleave(peers, options.repeats, options.device, options.shortest)
        size = {'part': part, 'M': count, 'D': width, 'k': NEIGHBORS}
        row = make_row(size, samples, reference, flops=2 * count * count * width)
        for name in list(peers)[1:-1] if options.device == 'cpu' else ():
            ratio = row['peers'][name]['ratio']['median']
            add_bar(row, f'{name} / {reference} at M={count}, D={width}', ratio, 5, at_least=True)
        rows.append(row)
    return rows


def contextual(images: int, cells: int, width: int, options: Namespace) -> list[dict[str, Any]]:
    """B4."""
    student, teacher = make_tokens(images, cells, width, device=options.device)
    plain = student.detach()
    maps, gradient = torch.empty(images, cells, cells, device=options.device), torch.empty_like(plain)

    def dense() -> Tensor:
        maps = [torch.bmm(x / width**0.5, x.transpose(1, 2)).softmax(2) for x in (student, teacher)]
        return grad(mse_loss(*maps), student)

    def products() -> None:
        for tokens in (plain, teacher):
            torch.bmm(tokens, tokens.transpose(1, 2), out=maps)
        for weights in (maps, maps.transpose(1, 2)):
            torch.bmm(weights, plain, out=gradient)

    peers = {
        'contextual_loss': lambda: grad(contextual_loss(student, teacher), student),
        'dense': dense,
        'four products': products,
    }
    samples = interleave(peers, options.repeats, options.device, options.shortest)
    row = make_row({'B': images, 'N': cells, 'D': width}, samples, 'dense', flops=8 * images * cells**2 * width)
    ratio = row['peers']['contextual_loss']['ratio']['median']
    add_bar(row, f'contextual / dense at N={cells}', ratio, 1.05)
    return [row]


def measure_growth(term: str, count: int, device: str) -> int:
    """Bytes by which one forward and backward of a term lifts the peak of memory, after a small one that loads code."""
    shape = (MEMORY_CELLS, MEMORY_WIDTH) if term == 'contextual' else (MEMORY_WIDTH,)
    losses: dict[str, Any] = {
        'local': local_preserving_loss,
        'global': global_relationship_loss,
        'contextual': contextual_loss,
        'dense local': lambda student, teacher: dense_local(student, teacher, True),
    }
    for name, chosen in OPTIONS.items():
        losses[name] = partial(losses[name.split(',')[0]], **chosen)
    rows = count // MEMORY_CELLS if term == 'contextual' else count
    small, large = (make_tokens(size, *shape, device=device) for size in (2 if term == 'contextual' else 16, rows))
    grad(losses[term](*small), small[0])
    reset_peak(device)
    before = peak_bytes(device)
    grad(losses[term](*large), large[0])
    return peak_bytes(device) - before


def memory(sizes: list[int], options: Namespace) -> list[dict[str, Any]]:
    """A fresh process for each term and size; then the exponents.

    A block of scores has a constant budget, which hides the growth of small M. From M = 8192 on, the exponent is fitted
    to the growth, and to its increments from each size to its double, where a constant cancels: of c + a * M^p they are
    proportional to M^p. The larger of both counts. On a CPU the allocator returns a freed tensor at once, so that the
    resident set is what tensors hold.
    """
    rows, environment = [], {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536'}
    for term in TERMS[:1] if options.smoke else TERMS:
        counts = [count for count in sizes if term != 'dense local' or count <= DENSE_UP_TO]
        command = [sys.executable, __file__, 'memory', '--device', options.device, '--threads', str(options.threads)]
        command += ['--child', term, '--sizes']
        growths = []
        for count in counts:
            child = subprocess.run([*command, str(count)], check=True, capture_output=True, text=True, env=environment)
            growths.append(int(child.stdout))
            print(f'| {term} | {count} | {growths[-1] / MIB:.1f} MiB |', flush=True)
        first = counts.index(FIT_FROM) if FIT_FROM in counts[:-1] else 0
        steps = [(m, after - before) for m, before, after in zip(counts, growths, growths[1:], strict=False)][first:]
        row: dict[str, Any] = {'term': term, 'D': MEMORY_WIDTH, 'M': counts, 'growth_bytes': growths}
        row['exponent_of_growth'] = fit_exponent(counts[first:], [max(1, growth) for growth in growths[first:]])
        if len(steps) > 1 and all(step > 0 for _, step in steps):
            row['exponent_of_increments'] = fit_exponent(*map(list, zip(*steps, strict=True)))
        exponent = max(row['exponent_of_growth'], row.get('exponent_of_increments', 0))
        if term != 'dense local':
            add_bar(row, f'{term}: exponent of memory in M from M={counts[first]}', exponent, 1.15)
        row['exponents'] = ', '.join(f'{key} {row[key]:.2f}' for key in row if key.startswith('exponent_'))
        print(f'<!-- {term}: {row["exponents"]}; {" ".join(map(describe_bar, row.get("bars", [])))} -->', flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Runs one table."""
    parser = make_parser(__doc__, SIZES)
    parser.add_argument('--child', help='one measurement of memory, in this process')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    use_clock(options.clock)
    sizes = parse_sizes(options.sizes, (SMOKE if options.smoke else SIZES)[options.table])
    options.shortest = 0.0 if options.smoke else 0.02
    options.repeats = options.repeats or (2 if options.smoke else REPEATS.get(options.table, 1))
    if options.child:
        print(measure_growth(options.child, sizes[0][0], options.device))
        return
    if options.table == 'memory':
        finish(options, memory([size[0] for size in sizes], options))
        return
    rows: list[dict[str, Any]] = []
    measure = {'infonce': infonce, 'knn': knn, 'local': local, 'contextual': contextual}[options.table]
    for size in sizes:
        for row in measure(*size, options=options):
            print_row(row, header=not rows)
            rows.append(row)
    finish(options, rows)


if __name__ == '__main__':
    main()
