"""The tokens of both models that a loss compares, and which of them count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trg_torchdistill.tokens import draw_cells


@dataclass(frozen=True)
class PairedTokens:
    """The tokens of a batch, over the common grid of student and teacher.

    Attributes:
        student: Student tokens [B, N, D_S].
        teacher: Teacher tokens [B, N, D_T]; token i of both is the same cell.
        mask: Which of them [B, N] count, None for all.
        grid: Cells [h, w] of the common grid.
        student_grid: Cells of the student's own, before it was pooled.
    """

    student: Tensor
    teacher: Tensor
    mask: Tensor | None
    grid: tuple[int, int]
    student_grid: tuple[int, int]

    @property
    def sides(self) -> dict[str, Tensor]:
        """The tokens by the name of their side."""
        return {'student': self.student, 'teacher': self.teacher}

    @property
    def counts(self) -> Tensor:
        """Which tokens [B, N] count."""
        return torch.ones_like(self.student[:, :, 0], dtype=torch.bool) if self.mask is None else self.mask

    def first(self, num_images: int) -> PairedTokens:
        """Returns the tokens of the first images."""
        mask = None if self.mask is None else self.mask[:num_images]
        return replace(self, student=self.student[:num_images], teacher=self.teacher[:num_images], mask=mask)

    def draw(self, num_drawn: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns cells for :func:`~trg_torchdistill.tokens.take_cells`: ``num_drawn`` an image, of those that count.

        A ``generator`` is one of the CPU, and so are the cells.
        """
        batch_size, num_cells, _ = self.student.shape
        device = self.student.device if generator is None else torch.device('cpu')
        mask = None if self.mask is None else self.mask.to(device)
        return draw_cells(batch_size, num_cells, num_drawn, generator, device, mask)

    @property
    def padding(self) -> float:
        """The share of the tokens that do not count."""
        return 0.0 if self.mask is None else 1 - self.mask.float().mean().item()

    def counted(self, num_drawn: int) -> float:
        """Returns how many tokens such a draw gives, the mean over the images."""
        if self.mask is None:
            return float(num_drawn)
        return self.mask.sum(1).clamp(max=num_drawn).float().mean().item()
