"""From feature maps to tokens: one token grid for the teacher and the student, and the draw of the graph's tokens.

Shapes: B images, C channels, H x W the feature map, h x w the token grid, N = h*w tokens an image, D features a token,
n tokens drawn an image, M = B*n tokens in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trg_torchdistill._checks import check_choice, check_floating, check_integer, check_map, check_mask, check_sequence
from trg_torchdistill.errors import TRGError

RANKS = {'bchw': 4, 'bhwc': 4, 'bnd': 3, 'bld': 3, 'bd': 2}
LAYOUT_OF_RANK = {4: 'bchw', 3: 'bnd', 2: 'bd'}
SEQUENCES = ('bnd', 'bld')


@dataclass(frozen=True)
class Tokenizer:
    """Cuts one feature into a grid of tokens.

    A feature map is cut into p x p patches, each a token ("the penultimate feature map is divided into patches"); a
    sequence of a vision transformer keeps its patch tokens as they are; a pooled vector is one token; a text is a row.

    Args:
        layout: ``bchw`` (CNN map), ``bhwc`` (Swin map), ``bnd`` (ViT sequence), ``bld`` (text, of any length), ``bd``
            (vector), or ``auto``: by rank, 4-D is ``bchw``, 3-D ``bnd``, 2-D ``bd``.
        patch_size: Side p of a patch in cells; a token then has D = C*p*p features, channel-major like
            :func:`torch.nn.functional.unfold`. H and W must be divisible by p.
        num_prefix_tokens: Class, distillation or register tokens to drop from the front of a sequence: [CLS] of a text.
        grid_size: [h, w] of a ``bnd`` sequence (before patches) whose length is not a square.

    Raises:
        TRGError: If an option has a wrong type; if an option is out of range or contradicts the layout.

    Example:
        >>> Tokenizer(num_prefix_tokens=1)(torch.rand(2, 1 + 49, 384)).shape
        torch.Size([2, 384, 7, 7])

    YAML::

        student_tokens: {layout: 'bnd', num_prefix_tokens: 1, grid_size: [7, 7]}
    """

    layout: str = 'auto'
    patch_size: int = 1
    num_prefix_tokens: int = 0
    grid_size: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_choice('layout', self.layout, ('auto', *RANKS))
        object.__setattr__(self, 'patch_size', check_integer('patch_size', self.patch_size, 1))
        object.__setattr__(self, 'num_prefix_tokens', check_integer('num_prefix_tokens', self.num_prefix_tokens, 0))
        if self.grid_size is not None:
            is_pair = isinstance(self.grid_size, Sequence) and not isinstance(self.grid_size, str)
            if not is_pair or len(self.grid_size) != 2:
                raise TRGError(f'expected `grid_size` to be [h, w] or null, got {self.grid_size!r}')
            object.__setattr__(self, 'grid_size', [check_integer('grid_size', side, 1) for side in self.grid_size])
        if self.num_prefix_tokens > 0 and self.layout not in ('auto', *SEQUENCES):
            raise TRGError(
                f"expected `num_prefix_tokens` to be 0 with layout '{self.layout}', got "
                f"{self.num_prefix_tokens}: only a sequence ('bnd') has prefix tokens"
            )
        if self.grid_size is not None and self.layout not in ('auto', 'bnd'):
            raise TRGError(
                f"expected `grid_size` to be null with layout '{self.layout}', got "
                f"{self.grid_size}: only a sequence ('bnd') needs it"
            )
        if self.patch_size > 1 and self.layout == 'bld':
            raise TRGError(
                f"expected `patch_size` to be 1 with layout 'bld', got {self.patch_size}: a text has no rows"
            )

    def __call__(self, feature: Tensor) -> Tensor:
        """Returns the token grid [B, D, h, w] of a feature in this tokenizer's layout.

        Raises:
            TRGError: If the feature is no floating-point tensor; if its shape does not fit the options.
        """
        cells = self._cells(feature)
        p = self.patch_size
        if p == 1:
            return cells
        height, width = cells.shape[-2:]
        if height % p or width % p:
            raise TRGError(f'expected `patch_size` to divide the feature map {height} x {width}, got {p}')
        return functional.unfold(cells, p, stride=p).reshape(len(cells), -1, height // p, width // p)

    def _cells(self, feature: Tensor) -> Tensor:
        check_floating('feature', feature)
        layout = LAYOUT_OF_RANK.get(feature.ndim, 'none') if self.layout == 'auto' else self.layout
        if RANKS.get(layout) != feature.ndim:
            expected = f'{RANKS[layout]}-D' if layout in RANKS else '2-D, 3-D or 4-D'
            raise TRGError(
                f"expected a {expected} feature for layout '{self.layout}', got shape "
                f'{list(feature.shape)}; set `layout:` and hook a module with that output'
            )
        if layout not in SEQUENCES and (self.num_prefix_tokens or self.grid_size is not None):
            raise TRGError(
                f"expected a 3-D feature ('bnd') for `num_prefix_tokens` or `grid_size`, got shape "
                f'{list(feature.shape)}'
            )
        if layout == 'bd':
            return feature[:, :, None, None]
        if layout == 'bhwc':
            return feature.permute(0, 3, 1, 2)
        if layout in SEQUENCES:
            height, width = self._grid_of(feature.shape[1])
            patches = feature[:, self.num_prefix_tokens :].transpose(1, 2)
            return patches.reshape(*patches.shape[:2], height, width)
        return feature

    def _grid_of(self, length: int) -> tuple[int, int]:
        count = length - self.num_prefix_tokens
        if count < 1:
            raise TRGError(f'expected more than `num_prefix_tokens` = {self.num_prefix_tokens} tokens, got {length}')
        if self.layout == 'bld':
            return 1, count
        if self.grid_size is not None:
            height, width = self.grid_size
            if height * width != count:
                raise TRGError(
                    f'expected `grid_size` to hold {count} tokens ({length} less '
                    f'{self.num_prefix_tokens} prefix tokens), got {height} x {width} = {height * width}'
                )
            return height, width
        side = math.isqrt(count)
        if side * side != count:
            raise TRGError(
                f'expected a square number of tokens, got {count}; {_square_hint(length)}set `grid_size: [h, w]`'
            )
        return side, side


def pool_to_common_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pools two token grids [B, D, h, w] to the element-wise smaller of both grid sizes.

    Raises:
        TRGError: If a grid is not 4-D or the batch sizes differ.
    """
    check_map('student', student)
    check_map('teacher', teacher)
    if len(student) != len(teacher):
        raise TRGError(
            f'expected `student` and `teacher` to have the same batch size, got {len(student)} and {len(teacher)}'
        )
    common = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return pool(student, common), pool(teacher, common)


def pool(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pools a token grid [B, D, h, w] to ``size``; a grid of that size is returned as it is."""
    return grid if grid.shape[-2:] == size else functional.adaptive_avg_pool2d(grid, size)


def any_in_cell(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns which cells [B, h, w] of a grid of ``size`` hold any pixel that counts, of the pixels' mask [B, H, W].

    A cell holds the pixels that adaptive pooling makes it of: where h does not divide H, two cells share some.

    Example:
        >>> any_in_cell(torch.tensor([[[True, False, False, False]]]), (1, 3)).tolist()
        [[[True, False, False]]]
    """
    return mask if mask.shape[1:] == size else functional.adaptive_max_pool2d(mask.float(), size) > 0


def flatten_grid(grid: Tensor) -> Tensor:
    """Returns the tokens [B, N, D] of a token grid [B, D, h, w], row by row."""
    check_map('grid', grid)
    return grid.flatten(2).transpose(1, 2)


def draw_cells(
    batch_size: int,
    num_cells: int,
    num_drawn: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Draws for each image ``num_drawn`` of its ``num_cells`` cells without replacement: indices [B, n].

    With a mask, an image with fewer cells that count gives all of these: places [M] among the B*N cells of the batch.

    Args:
        batch_size: Images B.
        num_cells: Tokens N an image.
        num_drawn: Tokens n to draw an image; all cells in order when n >= N.
        generator: Source of randomness, on ``device``; None for torch's own.
        device: Where the indices are drawn; on a GPU a copy from the CPU would wait for all work before it. None for
            the CPU.
        mask: Which cells [B, N] count, bool, on ``device``; None for all.

    Raises:
        TRGError: If the mask is no bool tensor [B, N].
    """
    if mask is not None:
        check_mask(mask, (batch_size, num_cells))
    if num_drawn >= num_cells:
        cells = torch.arange(num_cells, device=device).expand(batch_size, num_cells)
    else:
        order = torch.rand(batch_size, num_cells, generator=generator, device=device)
        if mask is not None:
            order = order.masked_fill(~mask, torch.inf)
        cells = order.topk(num_drawn, dim=1, largest=False).indices
    if mask is None:
        return cells
    first_of_image = num_cells * torch.arange(batch_size, device=cells.device)[:, None]
    return (cells + first_of_image)[mask.gather(1, cells)]


def take_cells(tokens: Tensor, cells: Tensor) -> Tensor:
    """Returns the tokens [M, D] that :func:`draw_cells` drew of ``tokens`` [B, N, D], image after image."""
    check_sequence('tokens', tokens)
    if cells.ndim == 1:
        return tokens.flatten(0, 1)[cells.to(tokens.device)]
    index = cells.to(tokens.device)[:, :, None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, index).flatten(0, 1)


def normalize(tokens: Tensor) -> Tensor:
    """Scales tokens [..., D] to unit L2 norm; one shorter than the dtype's epsilon has no direction and stays as it is.

    So a zero vector has the gradient of the identity instead of an infinite one.
    """
    square = tokens.square().sum(-1, keepdim=True)
    return tokens * square.masked_fill(square <= torch.finfo(tokens.dtype).eps ** 2, 1).rsqrt()


def in_full_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both in their common dtype, float32 or wider, and the teacher without gradient."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def without_autocast(tokens: Tensor) -> torch.autocast:
    """Returns a context in which products of the tokens keep their dtype."""
    return torch.autocast(tokens.device.type, enabled=False)


def _square_hint(length: int) -> str:
    for prefix in (1, 2, 4, 5):
        if math.isqrt(max(length - prefix, 0)) ** 2 == length - prefix > 0:
            return (
                f'drop the class token with `num_prefix_tokens: {prefix}` or '
                if prefix == 1
                else (f'drop the prefix tokens with `num_prefix_tokens: {prefix}` or ')
            )
    return ''
