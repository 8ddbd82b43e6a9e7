"""A loss that makes N x N numbers of the tokens of an image: how they are called, drawn, and what they weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trg_torchdistill._blocks import GPU_BLOCK_BYTES
from trg_torchdistill.losses.facts import Facts, Hint, shown_bytes

MOSTLY = 0.5


@dataclass(frozen=True)
class ImageMaps:
    """The N x N numbers that a loss makes of an image.

    Attributes:
        name: How they are called, ``context map``.
        relation: What a number says of two tokens, ``similarity``.
        scale: What the numbers are, ``softmax over the image``.
        loss: How their difference is called, ``contextual loss``.
        of: Makes them of one model's tokens, [B, N, D] to [B, N, N]; with a ``token_mask``, also of the mask [B, N].
        difference: The loss between the student's and the teacher's tokens [B, N, D], and the same.
    """

    name: str
    relation: str
    scale: str
    loss: str
    of: Callable[..., Tensor]
    difference: Callable[..., Tensor]


@dataclass(frozen=True)
class MapFacts(Facts):
    """The context maps on one batch.

    Attributes:
        map_bytes: Memory of both models' maps, see :func:`map_bytes`.
        map_bytes_yaml: The same with the YAML's batch size.
        saturated: By side, the share of rows whose largest entry is above 0.99: the softmax has no gradient there.
    """

    listed_as: ClassVar[str] = 'contexts'

    map_bytes: int
    map_bytes_yaml: int
    saturated: dict[str, float]

    def line(self, batch_size: int) -> str:
        """Returns the size of the maps here, and where it differs at the YAML's batch size."""
        here, there = shown_bytes(self.map_bytes), shown_bytes(self.map_bytes_yaml)
        line = f'{self.term}: {self.cells_shown()}, maps {here}'
        line += '' if here == there else f'; at a batch of {batch_size}: {there}'
        return line + self.edges_shown()

    def hints(self, teacher_is_trained: bool) -> Iterator[Hint]:
        """Yields that there is one token an image, and that the softmax is saturated."""
        if self.cells == 1:
            text = (
                f'`{self.term}` gets one token an image, and is 0 whatever the student does; hook an earlier layer in '
                '{where}'
            )
            yield Hint('one_token', 'student_module_path', text, self.term)
        believed = ('student', 'teacher') if teacher_is_trained else ('student',)
        full = [side for side, share in self.saturated.items() if share > MOSTLY and side in believed]
        if full:
            shares = ' and '.join(f"{self.saturated[side]:.0%} of the {side}'s rows" for side in full)
            effect = (
                'the softmax has no gradient there' if 'student' in full else 'each token is told to look at one alone'
            )
            text = (
                f'the context map of `{self.term}` is saturated, in {shares} one token takes more than 0.99: {effect}; '
                'write `normalize_tokens: True` in {where}'
            )
            yield Hint('saturated_context', 'normalize_tokens', text, self.term)


def map_bytes(batch_size: int, cells: int) -> int:
    """Returns the memory of both models' context maps in bytes: of all images, or of those in one block of 64 MiB."""
    return 2 * min(batch_size * cells**2 * 4, max(GPU_BLOCK_BYTES, cells**2 * 4))
