"""What ``TRGLoss`` says of its token graph: its size, its memory, and whether its edges have anything to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trg_torchdistill._blocks import GPU_BLOCK_BYTES
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.graph import gaussian_affinity
from trg_torchdistill.losses.facts import Facts, Hint, shown_bytes

# Below it, the softmax over a row of the graph is that of no edges at all.
SILENT_AFFINITY = 1e-3


@dataclass(frozen=True)
class GraphFacts(Facts):
    """The token graph on one batch, and on one of the YAML's size.

    Attributes:
        tokens_per_image: Tokens n drawn from an image.
        num_tokens: Tokens M of the graph.
        num_tokens_yaml: M with the YAML's batch size.
        num_neighbors: k, not clipped.
        graph_bytes: Memory of the graph, see :func:`graph_bytes`.
        graph_bytes_yaml: The same with the YAML's batch size.
        affinity: By side, the mean weight of an edge.
        fitting_sigma: Half the mean squared distance of the student's neighbours: edges then weigh about 1/e.
        temperature: tau, None without a global term.
    """

    listed_as: ClassVar[str] = 'graphs'

    tokens_per_image: int
    num_tokens: int
    num_tokens_yaml: int
    num_neighbors: int
    graph_bytes: int
    graph_bytes_yaml: int
    affinity: dict[str, float]
    fitting_sigma: float
    temperature: float | None

    def line(self, batch_size: int) -> str:
        """Returns the graph's size here, and where it differs at the YAML's batch size."""
        drawn = f'{self.tokens_per_image} of {self.cells} tokens an image'
        temperature = '' if self.temperature is None else f', temperature {self.temperature:.3g}'
        here, there = shown_bytes(self.graph_bytes), shown_bytes(self.graph_bytes_yaml)
        line = f'{self.term}: M = {self.num_tokens} ({drawn}), k = {self.num_neighbors}, graph {here}{temperature}'
        if self.num_tokens == self.num_tokens_yaml:
            return line
        return f"{line}; at the YAML's batch of {batch_size}: M = {self.num_tokens_yaml}, graph {there}"

    def hints(self, teacher_is_trained: bool) -> Iterator[Hint]:
        """Yields that neighbours are clipped, and that the local term is silent."""
        if self.num_neighbors >= self.num_tokens_yaml:
            text = (
                f'`num_neighbors` of `{self.term}` is {self.num_neighbors}, the graph has {self.num_tokens_yaml} '
                f"tokens at the YAML's batch size: it is clipped to {self.num_tokens_yaml - 1}; change it, "
                '`tokens_per_image:` or the batch size in {where}'
            )
            yield Hint('too_many_neighbors', 'num_neighbors', text)
        if self.affinity and self.affinity['student'] < SILENT_AFFINITY:
            text = (
                f"the local term of `{self.term}` is silent: the student's edges weigh {self.affinity['student']:.1e} "
                'on average, as the tokens are too far apart for `sigma:`; write `normalize_tokens: True`, or '
                f'`sigma: {self.fitting_sigma:.3g}`, in {{where}}'
            )
            yield Hint('silent_local', 'sigma', text, f'{self.term}.local')


def edge_facts(graph: LocalTerm, tokens: dict[str, Tensor]) -> tuple[dict[str, float], float]:
    """Returns by side the mean weight of an edge, nothing for one token, and the sigma that fits the student's.

    Args:
        graph: The term.
        tokens: By side, the tokens [M, D].
    """
    if len(tokens['student']) == 1:
        return {}, 0.0
    squares = {side: graph.neighbors(rows)[0] for side, rows in tokens.items()}
    affinity = {side: gaussian_affinity(square, graph.sigma).mean().item() for side, square in squares.items()}
    return affinity, squares['student'].mean().item() / 2


def graph_bytes(num_tokens: int, num_neighbors: int, width: int) -> int:
    """Returns the memory of a token graph in bytes, in float32, computed and not measured.

    Edges, M * k * 90 bytes: indices (8) and weights (4) of both models, one's indices in order and the places of the
    other's among them (4 * 8), both models' logits and weights over all these edges (2 * 2 * 2 * 4), a mask (2).
    The differences T_i - T_j of one block of rows, min(M * k * D * 4, 64 MiB), and the scores of the neighbour search,
    min(M * M * 4, 64 MiB), both as on a GPU: on a CPU the blocks are smaller. The tokens themselves, the projection and
    the global term's block of logits, as large as the scores, are not in it.

    Args:
        num_tokens: Tokens M of the graph.
        num_neighbors: Neighbours k of a token, not clipped.
        width: The larger width D of both models' tokens.
    """
    k = min(num_neighbors, max(num_tokens - 1, 0))
    edges = num_tokens * k * (2 * (8 + 4) + 4 * 8 + 2 * 2 * 2 * 4 + 2)
    differences, scores = num_tokens * k * width * 4, num_tokens**2 * 4
    return edges + min(differences, GPU_BLOCK_BYTES) + min(scores, GPU_BLOCK_BYTES)
