"""A vision transformer for images of 32 x 32 pixels, small enough to be trained on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from trg_torchdistill.models._common import check_num_classes

PATCH, CELLS, WIDTH, LAYERS, HEADS = 4, 8, 64, 4, 4


class Block(nn.TransformerEncoderLayer):
    """That of torch, pre-norm and without dropout, less the copies by which its attention puts the tokens first."""

    def __init__(self) -> None:
        super().__init__(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation='gelu', batch_first=True, norm_first=True)

    def _sa_block(self, x: Tensor, *_: object, **__: object) -> Tensor:
        own = self.self_attn
        heads = linear(x, own.in_proj_weight, own.in_proj_bias).view(*x.shape[:2], 3, HEADS, -1)
        mixed = scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4))
        attended: Tensor = own.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended


class ViT4Cifar(nn.Module):
    """Pre-norm encoder over the patches, with learned positions, no class token, and the mean of the tokens.

    Args:
        num_classes: Number of classes.

    Shape:
        Images [B, 3, 32, 32]; ``blocks`` gives [B, 64, 64], 8 x 8 tokens in the rows of the image; ``grid`` gives them,
        normalised, as a map [B, 64, 8, 8]; logits [B, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, CELLS * CELLS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.grid = nn.Unflatten(2, (CELLS, CELLS))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        patches = self.patches(images).flatten(2).transpose(1, 2).contiguous()
        tokens = self.blocks(patches + self.positions)
        features = self.grid(self.norm(tokens).transpose(1, 2))
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def vit_cifar_tiny(num_classes: int = 100) -> nn.Module:
    """ViT of 4 layers of width 64 on patches of 4 x 4 pixels, 213,796 parameters at 100 classes; tokens at ``blocks``.

    They are a sequence [B, 64, 64] without a class token. It wants AdamW, for batches of 128 at a rate of 0.002.

    YAML::

        student_model:
          key: 'vit_cifar_tiny'
          kwargs: {num_classes: 100}
    """
    check_num_classes('vit_cifar_tiny', num_classes)
    return ViT4Cifar(num_classes)
