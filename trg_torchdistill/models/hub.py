"""Models of timm and of Hugging Face's transformers by the name they have there; both packages are optional."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from trg_torchdistill._checks import advice, check_bool, check_integer, check_text, nearest
from trg_torchdistill.errors import TRGError, explained


def timm(
    model_name: str,
    num_classes: int | None = None,
    pretrained: bool = False,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model of timm; needs ``pip install 'trg_torchdistill[hub]'``.

    Most return a tensor of logits and are called by ``forward_batch_only``; one that returns a tuple while it trains,
    such as a distilled DeiT, by ``forward_logits_only``. Tokens of a ViT are the output of ``blocks``, [B, 1 + N, D],
    with ``num_prefix_tokens: 1`` under the token options for its class token.

    Args:
        model_name: Name in ``timm.list_models()``, with the tag of its weights if you like.
        num_classes: Number of classes; None for those of its weights.
        pretrained: Download the weights of timm.
        options: Further arguments of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        TRGError: If timm is missing; if an argument has a wrong type, or the model does not take one of the
            ``options``; if timm has no such model, or ``num_classes`` is less than 1.

    YAML::

        student_model:
          key: 'timm'
          kwargs:
            model_name: 'deit_tiny_patch16_224'
            num_classes: 100
    """
    with advice('change it under the `kwargs:` of the model `timm`'):
        check_text('model_name', model_name)
        check_bool('pretrained', pretrained)
        _check_options('options', options)
        given = dict(options or {})
        if num_classes is not None:
            check_integer('num_classes', num_classes, 1)
            given['num_classes'] = num_classes
    package = _import('timm', 'timm')
    with advice('change it under the `kwargs:` of the model `timm`'):
        if not package.is_model(model_name):
            known = package.list_models()
            raise TRGError(
                f'expected `model_name` to be a model of timm, got {model_name!r}{nearest(model_name, known)}'
            )
        with explained(f'timm cannot build {model_name!r}'):
            model: nn.Module = package.create_model(model_name, pretrained=pretrained, **given)
    return model


def hf_image_classifier(
    model_type: str,
    num_classes: int,
    config: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> nn.Module:
    """An image classifier of transformers that returns its logits; needs ``pip install 'trg_torchdistill[hub]'``.

    The model is the one of ``AutoModelForImageClassification``, with its own module paths, except that calling it gives
    the tensor of logits and not a ``ModelOutput``: ``forward_batch_only`` will do, as will the example trainer's
    evaluation. Tokens of a ViT are the output of ``vit.layernorm``, [B, 1 + N, D], with ``num_prefix_tokens: 1`` under
    the token options for its class token.

    Args:
        model_type: Architecture as transformers names it: ``vit``, ``deit``, ``swin``, ``resnet``, ``convnext``, ...
        num_classes: Number of classes.
        config: Values of its configuration, such as ``hidden_size``; transformers' defaults for the rest.
        weights: Repository of the hub, or local folder, whose weights fit that; None for random ones.

    Raises:
        TRGError: If transformers is missing; if an argument has a wrong type; if transformers has no such image
            classifier, or ``num_classes`` is less than 1.

    YAML::

        student_model:
          key: 'hf_image_classifier'
          kwargs:
            model_type: 'vit'
            num_classes: 100
            config: {hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 96}
    """
    with advice('change it under the `kwargs:` of the model `hf_image_classifier`'):
        check_text('model_type', model_type)
        check_integer('num_classes', num_classes, 1)
        _check_options('config', config)
        if weights is not None:
            check_text('weights', weights)
    package = _import('transformers', 'hf_image_classifier')
    classes = {entry.model_type: entry for entry in package.AutoModelForImageClassification._model_mapping}
    with advice('change it under the `kwargs:` of the model `hf_image_classifier`'):
        if model_type not in classes:
            raise TRGError(
                f'expected `model_type` to be an image classifier of transformers, got {model_type!r}'
                f'{nearest(model_type, classes)}'
            )
        settings = _settings(classes[model_type], dict(config or {}), num_classes)
    built = package.AutoModelForImageClassification._model_mapping[type(settings)]
    cls = built[0] if isinstance(built, tuple) else built
    model: nn.Module = cls(settings) if weights is None else cls.from_pretrained(weights, config=settings).train()
    model.register_forward_hook(_logits_of)
    return model


def _settings(cls: Any, config: dict[str, Any], num_classes: int) -> Any:
    """A configuration of transformers, which itself takes any keyword."""
    default = cls()
    for name in config:
        if not hasattr(default, name):
            raise TRGError(
                f'expected `config` to hold values of `{cls.__name__}`, got {name!r}{nearest(name, vars(default))}'
            )
    return cls(**{**config, 'num_labels': num_classes})


def _logits_of(module: nn.Module, args: Any, output: Any) -> Any:
    return output.logits


def _import(name: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TRGError(
            f'expected {name}, which the model `{key}` comes from, to be installed, got none; '
            "run: pip install 'trg_torchdistill[hub]'"
        ) from error


def _check_options(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise TRGError(f'expected `{name}` to be a mapping or null, got {value!r}')
