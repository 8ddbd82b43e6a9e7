"""Which tokens count: ``token_mask`` of the losses, and how what the host hands over becomes a mask of their grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill._checks import check_choice, check_counts, check_integer, check_text
from trg_torchdistill.errors import TRGError
from trg_torchdistill.io import IoDict, hooked_value, read_feature
from trg_torchdistill.tokens import Tokenizer, any_in_cell


@dataclass(frozen=True)
class TokenMask:
    """Where a loss finds which tokens count; the others are padding, and are in no graph, map or queue.

    Either the value hooked at a module: an attention mask [B, L], a map of pixels [B, H, W], of which what is not 0
    counts, or torchvision's ``ImageList``, of which the pixels inside their image count. Or the targets of a
    segmentation batch, [B, H, W], of which all but ``ignore_index`` counts. A token of which any pixel counts, counts.

    Args:
        path: Module path.
        io: ``input`` or ``output`` of that module.
        side: ``student`` or ``teacher``, whose module it is. An attention mask has the tokens that this side's
            tokenizer gets, its ``num_prefix_tokens`` included.
        key: Entry of a hooked mapping.
        ignore_index: Label of the pixels that do not count.

    Raises:
        TRGError: If an option has a wrong type or value; unless exactly one of ``path`` and ``ignore_index`` is given.

    YAML::

        token_mask: {path: 'token_mask', io: 'output', side: 'student'}
    """

    path: str | None = None
    io: str = 'output'
    side: str = 'student'
    key: str | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        check_choice('io', self.io, ('input', 'output'))
        check_choice('side', self.side, ('student', 'teacher'))
        for name in ('path', 'key'):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if (self.path is None) == (self.ignore_index is None):
            both = f'path={self.path!r} and ignore_index={self.ignore_index!r}'
            raise TRGError(
                'expected `token_mask` to name a hooked module, {path: ...}, or a label, {ignore_index: ...}, got '
                + both
            )
        if self.ignore_index is not None:
            check_integer('ignore_index', self.ignore_index)
        if self.ignore_index is not None and (self.io, self.side, self.key) != ('output', 'student', None):
            raise TRGError(
                'expected no `io`, `side` or `key` beside `ignore_index`, whose source is the targets, got some'
            )

    def read(self, owner: str, io_dict: IoDict, targets: object) -> Tensor:
        """Returns which entries [B, L] or pixels [B, H, W] count.

        Args:
            owner: Key of the loss in the YAML.
            io_dict: Hooked features of :attr:`side`.
            targets: Targets of the batch.

        Raises:
            TRGError: If there is none, or none of such a shape; if it is one that is added to logits.
        """
        if self.path is None:
            if not isinstance(targets, Tensor) or targets.ndim != 3:
                found = f'shape {list(targets.shape)}' if isinstance(targets, Tensor) else type(targets).__name__
                raise TRGError(
                    'expected the targets of the batch to be the labels [B, H, W] of pixels, among which is '
                    f'`ignore_index`, got {found}'
                )
            return torch.as_tensor(targets != self.ignore_index)
        source = f"the {self.side}'s `{self.path}` {self.io}"
        images = _image_list(hooked_value(io_dict, self.path, self.io, self.side, owner))
        if images is not None:
            return _inside(images)
        mask = read_feature(io_dict, self.path, self.io, self.side, owner, self.key, 'token_mask')
        if mask.ndim not in (2, 3):
            raise TRGError(
                f'expected {source} to be a mask [B, L] of tokens or [B, H, W] of pixels, got shape {list(mask.shape)}'
            )
        return check_counts(source, mask)

    def on_grid(self, mask: Tensor, tokenizer: Tokenizer, own: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns which tokens [B, N] of the common grid count.

        Args:
            mask: What :meth:`read` returned.
            tokenizer: That of :attr:`side`.
            own: Token grid [B, D, h, w] that it made.
            size: Cells of the common grid.

        Raises:
            TRGError: If the shape of the mask does not fit the tokens.
        """
        batch_size, _, *cells = own.shape
        if mask.ndim == 2:
            height, width = (side * tokenizer.patch_size for side in cells)
            length = tokenizer.num_prefix_tokens + height * width
            if mask.shape != (batch_size, length):
                raise TRGError(
                    f"expected a mask [B, L] = {[batch_size, length]} of the {self.side}'s tokens, of which "
                    f'`num_prefix_tokens` = {tokenizer.num_prefix_tokens} are dropped, got shape {list(mask.shape)}'
                )
            mask = mask[:, tokenizer.num_prefix_tokens :].reshape(-1, height, width)
        elif tokenizer.layout == 'bld' or len(mask) != batch_size:
            wanted = f'[B, L] for layout {tokenizer.layout!r}' if tokenizer.layout == 'bld' else '[B, H, W]'
            raise TRGError(f'expected a mask {wanted} with B = {batch_size}, got shape {list(mask.shape)}')
        return any_in_cell(mask, size).flatten(1).to(own.device)


def _image_list(value: Any) -> Any:
    """The ``ImageList`` in a hooked value, None if there is none; torchvision's transform returns it in a tuple."""
    values = value if isinstance(value, tuple | list) else (value,)
    return next((each for each in values if hasattr(each, 'image_sizes') and hasattr(each, 'tensors')), None)


def _inside(images: Any) -> Tensor:
    """Which pixels [B, H, W] of a padded batch are inside their image."""
    height, width = images.tensors.shape[-2:]
    sizes = torch.as_tensor(images.image_sizes, device=images.tensors.device)
    rows, columns = (
        torch.arange(side, device=sizes.device) < sizes[:, place, None] for place, side in enumerate((height, width))
    )
    return rows[:, :, None] & columns[:, None]
