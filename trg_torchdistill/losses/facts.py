"""What a loss has to say of one batch: its numbers, a line about them, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Hint:
    """What lets a training run and still go wrong.

    Attributes:
        kind: One word for machines.
        keyword: Keyword of the loss to change.
        text: What is wrong and what to change; ``{where}`` stands for the place of the keyword.
        explains: The term that is silent for this reason, in the YAML or as ``TERM.local``; None if there is none.
    """

    kind: str
    keyword: str
    text: str
    explains: str | None = None


@dataclass(frozen=True)
class Facts:
    """The tokens of a loss on one batch; a loss with more to say returns a subclass from ``facts``.

    Attributes:
        term: Name of the term in the YAML.
        cells: Tokens N of an image over the common grid.
        padding: The share of them that does not count.
        on_teacher_edges: By term, the share of its gradient that lands on the teacher's edges, see
            :func:`~trg_torchdistill.diagnostics.share_on_teacher_edges`.
    """

    listed_as: ClassVar[str] = 'relations'

    term: str
    cells: int
    padding: float = field(default=0.0, kw_only=True)
    on_teacher_edges: dict[str, float] = field(default_factory=dict, kw_only=True)

    def line(self, batch_size: int) -> str:
        """Returns a line for a terminal; ``batch_size`` is the YAML's."""
        return f'{self.term}: {self.cells_shown()}{self.edges_shown()}'

    def cells_shown(self) -> str:
        """Returns the tokens of an image, and how many of them count."""
        return f'{self.cells} tokens an image' + (f' ({self.padding:.1%} padding)' if self.padding else '')

    def edges_shown(self) -> str:
        """Returns where the gradient lands, for the end of the line."""
        shares = [f'{term} {share:.1%}' for term, share in self.on_teacher_edges.items() if share == share]
        return f"; of the gradient on the teacher's edges: {', '.join(shares)}" if shares else ''

    def hints(self, teacher_is_trained: bool) -> Iterator[Hint]:
        """Yields what may go wrong; ``teacher_is_trained`` says whether its features are those of trained weights."""
        yield from ()


def shown_bytes(count: int) -> str:
    """Returns a size of memory as a terminal shows it."""
    return f'{count / 2**20:.1f} MB' if count >= 2**20 / 10 else f'{count / 2**10:.1f} kB'
