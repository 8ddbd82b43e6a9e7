"""Time of the options of TRG beside its literal reading, forward and backward, each against peers in the same run.

python benchmarks/relations.py [--sizes 1024x64,4096x512] [--queue 16384] [--json FILE]

The local term with each choice of edges, the literal one as the reference: `teacher` has one neighbour search of two.
Local structure preserving (LSP) is `teacher`, `proportional`; the in-batch term of CIRKD is the complete graph,
`proportional`. Then the global term: InfoNCE, soft targets, and both with a queue, against the products that the
equations need with the queue's columns: logits and P K, and the teacher's own logits for soft targets.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

import torch
from _timing import add_bar, finish, interleave, make_parser, make_row, parse_sizes, print_row, use_clock
from losses import grad, make_tokens
from torch import Tensor
from torch.nn.functional import normalize

from trg_torchdistill import global_relationship_loss, local_preserving_loss

SIZES = {'local': [(1024, 64), (4096, 128), (4096, 512)], 'global': [(1024, 64), (1024, 512)]}
SMOKE = [(64, 16)]
LOCAL: dict[str, dict[str, Any]] = {
    'own': {},
    'teacher': {'edges': 'teacher'},
    'union': {'edges': 'union'},
    'LSP': {'edges': 'teacher', 'row_distribution': 'proportional'},
    'CIRKD': {'num_neighbors': None, 'row_distribution': 'proportional'},
}


def local(count: int, width: int, options: Namespace) -> dict[str, Any]:
    """The local term."""
    student, teacher = make_tokens(count, width, device=options.device)
    peers = {
        name: partial(_gradient, partial(local_preserving_loss, **chosen), student, teacher)
        for name, chosen in LOCAL.items()
    }
    samples = interleave(peers, options.repeats, options.device, options.shortest)
    return make_row({'part': 'local', 'M': count, 'D': width}, samples, 'own')


def global_term(count: int, width: int, options: Namespace) -> dict[str, Any]:
    """The global term."""
    student, teacher = make_tokens(count, width, device=options.device)
    queue = make_tokens(options.queue, width, device=options.device)[1]
    columns = torch.cat([normalize(teacher), normalize(queue)])
    queries, logits = normalize(student.detach()), torch.empty(count, len(columns), device=options.device)
    gradient = torch.empty_like(queries)

    def products(number: int) -> Tensor:
        for _ in range(number):
            torch.mm(queries, columns.T, out=logits)
        return torch.mm(logits, columns, out=gradient)

    peers = {
        'self': partial(_gradient, global_relationship_loss, student, teacher),
        'teacher': partial(_gradient, partial(global_relationship_loss, targets='teacher'), student, teacher),
        'self, queue': partial(_gradient, partial(global_relationship_loss, queue=queue), student, teacher),
        'two products': partial(products, 1),
        'teacher, queue': partial(
            _gradient, partial(global_relationship_loss, targets='teacher', queue=queue), student, teacher
        ),
        'three products': partial(products, 2),
    }
    samples = interleave(peers, options.repeats, options.device, options.shortest)
    row = make_row({'part': 'global', 'M': count, 'Q': options.queue, 'D': width}, samples, 'two products')
    add_bar(row, f'self, queue / two products at D={width}', row['peers']['self, queue']['ratio']['median'], 1.2)
    return row


def _gradient(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    return grad(loss(student, teacher), student)


def main() -> None:
    """Runs one table."""
    parser = make_parser(__doc__, SIZES)
    parser.add_argument('--queue', type=int, default=16384)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    use_clock(options.clock)
    options.shortest = 0.0 if options.smoke else 0.02
    options.repeats = options.repeats or (2 if options.smoke else 9)
    options.queue = 100 if options.smoke else options.queue
    rows: list[dict[str, Any]] = []
    measure = {'local': local, 'global': global_term}[options.table]
    for size in parse_sizes(options.sizes, SMOKE if options.smoke else SIZES[options.table]):
        rows.append(measure(*size, options=options))
        print_row(rows[-1], header=len(rows) == 1)
    finish(options, rows)


if __name__ == '__main__':
    main()
