"""What ``TRGLoss`` says of its token graph: its size, its memory, and whether its edges have anything to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trg_torchdistill._blocks import GPU_BLOCK_BYTES
from trg_torchdistill.diagnostics import graph_of, teacher_rows
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.graph import gaussian_affinity
from trg_torchdistill.losses.facts import Facts, Hint, shown_bytes

# Below it, the softmax over a row of the graph is that of no edges at all.
SILENT_AFFINITY = 1e-3
# Above it, a row of targets has one entry and nothing to say of the others; below it, all entries are alike.
ONE_ENTRY, MOSTLY, EVEN = 0.99, 0.5, 1.02
MEASURED_TOKENS = 1024  # as many as are quick


@dataclass(frozen=True)
class GraphFacts(Facts):
    """The token graph on one batch, and on one of the YAML's size.

    Attributes:
        tokens_per_image: Tokens n drawn from an image.
        num_tokens: Tokens M of the graph.
        num_tokens_yaml: M with the YAML's batch size.
        num_neighbors: k, not clipped; None for the complete graph.
        graph_bytes: Memory of the graph, see :func:`graph_bytes`.
        graph_bytes_yaml: The same with the YAML's batch size.
        queue_size: Teacher tokens of other batches that are kept.
        queue_bytes: Memory of these.
        affinity: By side, the mean weight of an edge, A; nothing for one token.
        fitting_sigma: Half the mean squared distance of the student's neighbours: edges then weigh about 1/e.
        sharp_rows: Share of the teacher's rows whose largest entry is above 0.99, of ``proportional`` ones; else 0.
        row_range: Mean ratio of the largest to the smallest entry in these, None for others.
        sharp_targets: Share of the global term's soft targets whose largest entry is above 0.99; else 0.
        temperature: tau, None without a global term.
    """

    listed_as: ClassVar[str] = 'graphs'

    tokens_per_image: int
    num_tokens: int
    num_tokens_yaml: int
    num_neighbors: int | None
    graph_bytes: int
    graph_bytes_yaml: int
    queue_size: int
    queue_bytes: int
    affinity: dict[str, float]
    fitting_sigma: float
    sharp_rows: float
    row_range: float | None
    sharp_targets: float
    temperature: float | None

    def line(self, batch_size: int) -> str:
        """Returns the graph's size here, and where it differs at the YAML's batch size."""
        drawn = f'{self.tokens_per_image} of {self.cells_shown()}'
        temperature = '' if self.temperature is None else f', temperature {self.temperature:.3g}'
        here, there = shown_bytes(self.graph_bytes), shown_bytes(self.graph_bytes_yaml)
        k = 'all' if self.num_neighbors is None else self.num_neighbors
        queue = f', queue of {self.queue_size} {shown_bytes(self.queue_bytes)}' if self.queue_size else ''
        line = f'{self.term}: M = {self.num_tokens} ({drawn}), k = {k}, graph {here}{queue}{temperature}'
        if self.num_tokens != self.num_tokens_yaml:
            line += f"; at the YAML's batch of {batch_size}: M = {self.num_tokens_yaml}, graph {there}"
        return line + self.edges_shown()

    def hints(self, teacher_is_trained: bool) -> Iterator[Hint]:
        """Yields that neighbours are clipped, that the local term is silent, and that targets are too sharp or even."""
        if self.num_neighbors is not None and self.num_neighbors >= self.num_tokens_yaml:
            text = (
                f'`num_neighbors` of `{self.term}` is {self.num_neighbors}, the graph has {self.num_tokens_yaml} '
                f"tokens at the YAML's batch size: it is clipped to {self.num_tokens_yaml - 1}; change it, "
                '`tokens_per_image:` or the batch size in {where}'
            )
            yield Hint('too_many_neighbors', 'num_neighbors', text)
        if self.affinity and self.affinity['student'] < SILENT_AFFINITY and self.row_range is None:
            text = (
                f"the local term of `{self.term}` is silent: the student's edges weigh {self.affinity['student']:.1e} "
                'on average, as the tokens are too far apart for `sigma:`; write `normalize_tokens: True`, or '
                f'`sigma: {self.fitting_sigma:.3g}`, in {{where}}'
            )
            yield Hint('silent_local', 'sigma', text, f'{self.term}.local')
        if not teacher_is_trained:
            return
        if self.sharp_rows > MOSTLY:
            text = (
                f"{self.sharp_rows:.0%} of the teacher's rows in `{self.term}` have one neighbour that takes more than "
                '0.99: the graph is that of the nearest neighbour alone; raise `sigma:` in {where}'
            )
            yield Hint('sharp_rows', 'sigma', text)
        if self.row_range is not None and self.row_range < EVEN:
            text = (
                f"the teacher's neighbours in `{self.term}` weigh the same, the largest {self.row_range:.3f} times the "
                'smallest: which is nearer has no say; lower `sigma:` in {where}'
            )
            yield Hint('even_rows', 'sigma', text)
        if self.sharp_targets > MOSTLY:
            text = (
                f'{self.sharp_targets:.0%} of the soft targets of `{self.term}` have one token that takes more than '
                "0.99: they are those of `global_targets: 'self'`; raise `target_temperature:` in {where}"
            )
            yield Hint('sharp_targets', 'target_temperature', text)


def edge_facts(term: LocalTerm, tokens: dict[str, Tensor]) -> dict[str, Any]:
    """Returns what :class:`GraphFacts` has of the edges.

    Args:
        term: The local term.
        tokens: By side, the tokens [M, D].
    """
    found: dict[str, Any] = {'affinity': {}, 'fitting_sigma': 0.0, 'sharp_rows': 0.0, 'row_range': None}
    if len(tokens['student']) <= 1:
        return found
    pairs, distances = graph_of(term, **tokens)
    squares = {side: each.gather(1, pairs.columns)[pairs.of(side)] for side, each in distances.items()}
    found['affinity'] = {side: gaussian_affinity(each, term.sigma).mean().item() for side, each in squares.items()}
    found['fitting_sigma'] = squares['student'].mean().item() / 2
    if term.row_distribution == 'proportional':
        rows = teacher_rows(term, pairs, distances['teacher'])
        largest, smallest = rows.amax(1), rows.masked_fill(rows == 0, 1).amin(1)
        found |= {
            'sharp_rows': (largest > ONE_ENTRY).float().mean().item(),
            'row_range': (largest / smallest).mean().item(),
        }
    return found


def graph_bytes(num_tokens: int, term: LocalTerm, width: int) -> int:
    """Returns the memory of a token graph in bytes, in float32, rounded up.

    Pairs, M * K * 80 bytes, K = k with the teacher's edges, else 2k: 50 to 80 measured on a CPU, for their columns and
    masks and both models' distances, affinities, weights and what the divergence is made of. The differences T_i - T_j
    of one block of rows, min(M * K * D * 4, 64 MiB), and the scores of the neighbour search, min(M * M * 4, 64 MiB),
    both as on a GPU: on a CPU the blocks are smaller. Of the complete graph, sixteen times the scores of one block. The
    tokens themselves, the projection and the global term's block of logits, as large as the scores, are not in it.

    Args:
        num_tokens: Tokens M of the graph.
        term: The local term.
        width: The larger width D of both models' tokens.
    """
    scores = min(num_tokens**2 * 4, GPU_BLOCK_BYTES)
    if term.num_neighbors is None:
        return 16 * scores
    k = min(term.num_neighbors, max(num_tokens - 1, 0))
    pairs = num_tokens * (k if term.edges == 'teacher' else 2 * k)
    return pairs * 80 + min(pairs * width * 4, GPU_BLOCK_BYTES) + scores
