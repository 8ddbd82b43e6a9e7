"""Builds text classifiers of transformers without its hub: from a local folder, or as their names tell."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, placed

NAME = 'pretrained_model_name_or_path'
# Sizes by a word of the name, for families whose published models are called by them.
SIZES = {'base': (12, 768, 12), 'large': (24, 1024, 16)}
SIZED_FAMILIES = ('bert', 'roberta', 'xlm-roberta', 'camembert', 'electra', 'deberta', 'deberta-v2', 'distilbert')
SIZE_IN_NAME = re.compile(r'L-(?P<layers>\d+)_H-(?P<width>\d+)_A-(?P<heads>\d+)')
# Identifiers of [CLS] and [SEP] in the public vocabularies of families whose configurations do not tell them.
SPECIAL_IDS = {**dict.fromkeys(('bert', 'distilbert', 'electra', 'mobilebert'), (101, 102)), 'deberta-v2': (1, 2)}


def transformers() -> Any:
    """Returns the package.

    Raises:
        TRGError: If it is not installed.
    """
    try:
        return importlib.import_module('transformers')
    except ImportError as error:
        raise TRGError(
            'expected transformers, of which the models of a text classification are, to be installed, got none; run: '
            "pip install 'trg_torchdistill[hub]'"
        ) from error


def local_folder(config: Config, path: tuple[str, ...]) -> Path | None:
    """Returns the folder from which the trainer loads the model described at ``path``, None for one of the hub."""
    for name in (config.get(*path, 'src_ckpt'), config.get(*path, 'model_kwargs', NAME)):
        if isinstance(name, str) and Path(name).is_dir():
            return Path(name)
    return None


def model_config(config: Config, path: tuple[str, ...], num_labels: int | None = None) -> Any:
    """Returns the configuration of the model described at ``path``.

    Args:
        config: A YAML for a text classification.
        path: Path of the model's block.
        num_labels: Overrides that of its ``config_kwargs:``.

    Raises:
        TRGError: If its folder holds none, or its name does not tell its family.
    """
    kwargs = dict(config.mapping(*path, 'config_kwargs'))
    if num_labels is not None:
        kwargs['num_labels'] = num_labels
    where = config.where(*path, 'config_kwargs')
    with placed(f'transformers refused {where}', 'correct it'):
        if Path(str(kwargs[NAME])).is_dir():
            return transformers().AutoConfig.from_pretrained(**kwargs, local_files_only=True)
        cls, sizes = _by_name(str(kwargs.pop(NAME)), where)
        return cls(**{**sizes, **kwargs})


def describe(settings: Any) -> str:
    """Returns a configuration in brief."""
    layers, width = (getattr(settings, name, '?') for name in ('num_hidden_layers', 'hidden_size'))
    return f'{type(settings).__name__}, {layers} layers of {width}'


def build_classifier(config: Config, path: tuple[str, ...], num_labels: int | None = None) -> nn.Module:
    """Builds the model described at ``path``, with its weights where they are in a local folder, else random ones.

    Raises:
        TRGError: If that cannot be done.
    """
    settings, folder = model_config(config, path, num_labels), local_folder(config, path)
    auto = transformers().AutoModelForSequenceClassification
    with placed(f'transformers cannot build {config.where(*path)}', 'correct it'), preserved_random_state():
        if folder is None:
            model: nn.Module = auto.from_config(settings)
        else:
            model = auto.from_pretrained(folder, config=settings, local_files_only=True)
    return model


def special_ids(config: Config, path: tuple[str, ...], settings: Any) -> list[int] | None:
    """Returns the identifiers of the tokens that begin, part and end a text; None if they are not known here."""
    name = config.get(*path, 'tokenizer_kwargs', NAME)
    if isinstance(name, str) and Path(name).is_dir():
        with placed(f'transformers refused {config.where(*path, "tokenizer_kwargs")}', 'correct it'):
            tokenizer = transformers().AutoTokenizer.from_pretrained(
                **config.mapping(*path, 'tokenizer_kwargs'), local_files_only=True
            )
        found = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    else:
        found = [*SPECIAL_IDS.get(settings.model_type, (settings.bos_token_id, settings.eos_token_id))]
    return sorted({identifier for identifier in found if identifier is not None}) or None


def _by_name(name: str, where: str) -> tuple[Any, Mapping[str, int]]:
    """Returns the configuration class of a model of the hub, and the sizes that its name tells."""
    package = transformers()
    words = name.lower().replace('_', '-')
    mapping = package.models.auto.configuration_auto.CONFIG_MAPPING
    classifiers = package.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    found = [family for family in classifiers if re.search(rf'(^|[/-]){re.escape(family)}(-|$)', words)]
    if not found:
        raise UnknownHereError(
            f'expected {where} to name a local folder, or a model whose name tells its family, got {name!r}, and '
            f'nothing is downloaded here; download it and write its folder under `{NAME}:`'
        )
    family = max(found, key=len)
    told = SIZE_IN_NAME.search(name)
    if told is not None:
        layers, width, heads = (int(number) for number in told.groups())
    elif family in SIZED_FAMILIES and not SIZES.keys().isdisjoint(words.split('-')):
        layers, width, heads = next(SIZES[word] for word in words.split('-') if word in SIZES)
    else:
        return mapping[family], {}
    sizes = {'num_hidden_layers': layers, 'hidden_size': width, 'num_attention_heads': heads}
    if family == 'distilbert':
        return mapping[family], {}
    return mapping[family], {**sizes, 'intermediate_size': 4 * width}
