"""The table of the experiments: models, their token maps, and who teaches whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from configs.generator.recipes import CIFAR10, CIFAR100, HUB, ILSVRC, ILSVRC_LT, ILSVRC_VIT, LONG_TAILED, Recipe


@dataclass(frozen=True)
class Model:
    """A model of an experiment, and where its tokens are taken.

    Attributes:
        name: Its name in file names.
        layer: Module whose output is the token map.
        width: Features of a token there.
        key: Its key in the YAML, its name if empty.
        kwargs: Further arguments, beside ``num_classes``.
        tokens: Options of the tokenizer.
        weights: Arguments that give a teacher its published weights; one without is trained by its ``ce`` YAML.
        is_slow: Whether the literature trains it with the lower learning rate.
    """

    name: str
    layer: str
    width: int
    key: str = ''
    kwargs: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    is_slow: bool = False


def small(name: str, layer: str, width: int, is_slow: bool = False) -> Model:
    """A model for CIFAR, under its own key."""
    return Model(name, layer, width, is_slow=is_slow)


def torchvision(name: str, layer: str, width: int, **tokens: Any) -> Model:
    """A model of torchvision; as a teacher it has torchvision's weights."""
    return Model(name, layer, width, tokens=tokens, weights={'weights': 'IMAGENET1K_V1'})


def timm(name: str, model_name: str, layer: str, width: int, **tokens: Any) -> Model:
    """A model of timm; as a teacher it has timm's weights."""
    kwargs = {'model_name': model_name}
    return Model(name, layer, width, 'timm', kwargs, tokens, weights={'pretrained': True})


RESNET20, RESNET32, RESNET56, RESNET110 = (small(f'resnet{depth}', 'layer3', 64) for depth in (20, 32, 56, 110))
RESNET8X4, RESNET32X4 = small('resnet8x4', 'layer3', 256), small('resnet32x4', 'layer3', 256)
WRN_16_2, WRN_40_1, WRN_40_2 = (
    small('wrn_16_2', 'relu', 128),
    small('wrn_40_1', 'relu', 64),
    small('wrn_40_2', 'relu', 128),
)
VGG8, VGG13 = small('vgg8', 'block4', 512), small('vgg13_cifar', 'block4', 512)
MOBILENETV2 = small('mobilenetv2_cifar', 'conv2', 1280, is_slow=True)
SHUFFLENETV1 = small('shufflenetv1_cifar', 'layer3', 960, is_slow=True)
SHUFFLENETV2 = small('shufflenetv2_cifar', 'conv5', 1024, is_slow=True)

TV_RESNET18, TV_RESNET34 = torchvision('resnet18', 'layer4', 512), torchvision('resnet34', 'layer4', 512)
TV_RESNET50 = torchvision('resnet50', 'layer4', 2048)
SWIN_S, SWIN_T = (torchvision(f'swin_{size}', 'features', 768, layout='bhwc') for size in 'st')
MOBILENETV1 = timm('mobilenetv1', 'mobilenetv1_100', 'blocks', 1024)
DEIT_TINY = timm('deit_tiny', 'deit_tiny_patch16_224', 'blocks', 192, num_prefix_tokens=1)
DEIT_SMALL = timm('deit_small', 'deit_small_patch16_224', 'blocks', 384, num_prefix_tokens=1)

# ViTs for images of 32 x 32 pixels in patches of 4 x 4, with names of both hubs.
GRID = {'num_prefix_tokens': 1, 'grid_size': [8, 8]}
TIMM_VIT = Model(
    'timm_vit',
    'blocks',
    192,
    'timm',
    {'model_name': 'vit_tiny_patch16_224', 'options': {'img_size': 32, 'patch_size': 4}},
    GRID,
)
HF_SIZES = {'hidden_size': 192, 'num_hidden_layers': 12, 'num_attention_heads': 3, 'intermediate_size': 768}
HF_VIT = Model(
    'hugging_face_vit',
    'vit.layernorm',
    192,
    'hf_image_classifier',
    {'model_type': 'vit', 'config': {'image_size': 32, 'patch_size': 4, **HF_SIZES}},
    GRID,
)

# Recipe, (teacher, student), ...
PAIRS: list[tuple[Recipe, list[tuple[Model, Model]]]] = [
    (
        CIFAR100,
        [
            (WRN_40_2, WRN_16_2),
            (WRN_40_2, WRN_40_1),
            (RESNET56, RESNET20),
            (RESNET110, RESNET20),
            (RESNET110, RESNET32),
            (RESNET32X4, RESNET8X4),
            (VGG13, VGG8),
            (VGG13, MOBILENETV2),
            (RESNET32X4, SHUFFLENETV1),
            (RESNET32X4, SHUFFLENETV2),
            (WRN_40_2, SHUFFLENETV1),
        ],
    ),
    (CIFAR10, [(RESNET56, RESNET20), (WRN_40_2, WRN_16_2)]),
    *((recipe, [(RESNET56, RESNET20)]) for recipe in LONG_TAILED),
    (ILSVRC, [(TV_RESNET34, TV_RESNET18), (TV_RESNET50, MOBILENETV1)]),
    (ILSVRC_LT, [(TV_RESNET50, TV_RESNET18)]),
    (ILSVRC_VIT, [(TV_RESNET50, DEIT_TINY), (DEIT_SMALL, DEIT_TINY), (SWIN_S, SWIN_T)]),
    (HUB, [(RESNET56, TIMM_VIT), (RESNET56, HF_VIT)]),
]
