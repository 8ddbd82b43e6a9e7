"""Text classification: the example trainers of torchdistill under ``examples/hf_transformers``."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from trg_torchdistill.cli.probe.batch import BATCH_SIZE, Batch
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.probe.trial import Size
from trg_torchdistill.cli.recipe.called import loaders
from trg_torchdistill.cli.recipe.config import Config, shown
from trg_torchdistill.cli.recipe.edit import unshared
from trg_torchdistill.cli.tasks.task import Mask, Task
from trg_torchdistill.cli.tasks.text_models import (
    NAME,
    build_classifier,
    describe,
    local_folder,
    special_ids,
)
from trg_torchdistill.errors import TRGError

BLOCKS = ('config_kwargs', 'tokenizer_kwargs', 'model_kwargs')
FOLDER = 'examples/hf_transformers'
LENGTH = 12
NUM_STEPS = 1000


@dataclass(frozen=True)
class TextLength:
    """The longest text of a batch.

    Attributes:
        tokens: Tokens of it, special ones included.
    """

    tokens: int
    source: str = 'lengths differ, shorter ones are padded'
    is_guess: bool = False

    def __str__(self) -> str:
        return f'up to {self.tokens} tokens'


class TextClassification(Task):
    """One label, number or set of labels a text or pair of texts; models and tokenizers of transformers."""

    name = 'text classification'
    item, items = 'a text', 'texts'
    label = 'the index of its class, a number, or a 0 or 1 for each class'
    metric = 'that of `datasets:` (GLUE) or `metrics:`'
    returns_logits = False  # the host's losses hook the classifier, and the trainer takes ``.logits``
    model_keys = ('model_name_or_path', *BLOCKS)
    packages = ('trg_torchdistill', 'trg_torchdistill.accelerate')
    sections = ('preprocess', 'metrics', 'evaluate', 'private')

    def traits(self, config: Config) -> list[str]:
        """Returns the blocks of a model that are transformers'."""
        models = config.model_paths
        return [f'`{block}:` of its models' for block in BLOCKS if any(config.get(*path, block) for path in models)]

    def trainer(self, config: Config) -> str:
        """Returns that of GLUE, unless the YAML says how its texts are tokenised."""
        script = 'general_language_understanding' if config.get('preprocess') is None else 'text_classification'
        return f'{FOLDER}/{script}.py'

    def command(self, config: Config, file: str) -> str:
        """Returns the command with the task of GLUE, whose metric the trainer looks up by that name."""
        words = ['accelerate', 'launch', self.trainer(config), '--config', file]
        if config.get('preprocess') is None:
            names = [config.get('datasets', key, 'name') for key in config.mapping('datasets')]
            words += [word for name in names[:1] if name for word in ('--task_name', str(name))]
        return shlex.join(words)

    def check_models(self, config: Config) -> None:
        """Checks the blocks from which the trainer loads configuration, tokenizer and weights."""
        for path, block in itertools.product(config.model_paths, BLOCKS):
            name = config.mapping(*path, block).get(NAME)
            if not isinstance(name, str):
                raise TRGError(
                    f'expected {config.where(*path, block)} to have `{NAME}:`, a name of the hub or a folder, got '
                    f'{shown(name)}; write it'
                )

    def build(self, config: Config, path: tuple[str, ...], num_classes: int | None) -> nn.Module:
        """Builds a model of transformers."""
        self.check_models(config)
        return build_classifier(config, path, num_classes)

    def built_as(self, config: Config, side: str, model: nn.Module) -> str:
        """Returns what the name of a model of the hub was taken for."""
        path = config.student_path if side == 'student' else config.teacher_path or ()
        return '' if local_folder(config, path) else f': by its name {describe(model.config)}'

    def load_start(self, config: Config, path: tuple[str, ...], model: nn.Module) -> tuple[str, bool]:
        """Returns where the weights are from; :meth:`build` has loaded them already."""
        folder = local_folder(config, path)
        if folder is not None:
            return f'weights of {folder}', True
        return f'by its name {describe(model.config)}, with random weights: nothing is downloaded', False

    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> list[TextLength]:
        """Returns one: the models take any length up to their positions."""
        return [TextLength(LENGTH)]

    def batch(self, model: nn.Module, size: Size) -> Batch:
        """Returns random texts, the first as long as the batch, the last half as long.

        Raises:
            TRGError: If the size is one of images.
        """
        if not isinstance(size, TextLength):
            raise TRGError('a text has no such size: leave `--input-size` out')
        texts = RandomTexts(BATCH_SIZE, size.tokens, model.config)
        kwargs = torch.utils.data.default_collate([texts[index] for index in range(BATCH_SIZE)])
        del kwargs['labels']
        return Batch((BATCH_SIZE, size.tokens), kwargs=kwargs)

    def random_data(self, probe: ModelProbe, count: int) -> Dataset[Any]:
        """Returns random texts, padded to one length."""
        return RandomTexts(count, probe.batch.shape[1], probe.model.config)

    def step(self, batch: Any, device: torch.device) -> tuple[Any, Any, Any]:
        """Returns the batch alone: the labels are in it."""
        return {name: value.to(device) for name, value in batch.items()}, None, None

    def mask(self, config: Config, probes: Mapping[str, ModelProbe]) -> Mask:
        """Returns the sub-module of ``Student4TRG`` that sees the attention mask, without the special tokens."""
        found = special_ids(config, config.student_path, probes['student'].model.config)
        note = 'the attention mask of a batch reaches the losses through `token_mask` of `Student4TRG`'
        if found is None:
            note += (
                '; the numbers of the tokens that begin, part and end a text are not known here, so they take part: '
                'write `special_ids: [...]` under `token_mask:` to leave them out.'
            )
        else:
            note += f', without the tokens {found}, which begin, part and end a text; another vocabulary has others.'
        return Mask(
            loss={'token_mask': {'path': 'token_mask', 'io': 'output', 'side': 'student'}},
            wrapper={'token_mask': {} if found is None else {'special_ids': found}},
            hooks={'student': ('token_mask',)},
            note=note,
        )

    def as_trained(self, config: Config) -> Config:
        """Returns the YAML with what the trainers put in: data sets by identifier, texts padded, steps counted."""
        data = unshared(config.data)
        data['datasets'] = dict.fromkeys(_dataset_ids(config))
        changed = Config(config.path, config.text, data)
        for path in loaders(changed):
            changed.mapping(*path)['collate_fn'] = None
        for stage in changed.stage_paths():
            steps = changed.get(*stage, 'scheduler', 'kwargs')
            if isinstance(steps, dict):
                steps['num_training_steps'] = NUM_STEPS
        return changed


class RandomTexts(Dataset[Any]):
    """Random tokens with random labels, as transformers takes them: shorter texts are padded.

    Args:
        size: Number of texts.
        length: Tokens of the longest ones.
        settings: Configuration of the model.
    """

    def __init__(self, size: int, length: int, settings: Any) -> None:
        self.size, self.length, self.settings = size, length, settings

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns tokens [L], their mask [L] and the label."""
        generator = torch.Generator().manual_seed(index)
        mask = (torch.arange(self.length) < (self.length if index % 2 == 0 else self.length // 2)).long()
        tokens = torch.randint(self.settings.vocab_size, (self.length,), generator=generator)
        padding = self.settings.pad_token_id or 0
        return {
            'input_ids': torch.where(mask > 0, tokens, padding),
            'attention_mask': mask,
            'labels': self._label(generator),
        }

    def _label(self, generator: torch.Generator) -> Tensor:
        num_labels, problem = self.settings.num_labels, getattr(self.settings, 'problem_type', None)
        if problem == 'multi_label_classification':
            return torch.randint(2, (num_labels,), generator=generator).float()
        if num_labels == 1:
            return torch.rand((), generator=generator)
        return torch.randint(num_labels, (), generator=generator)


def _dataset_ids(config: Config) -> list[str]:
    """Returns the identifiers under which the trainers hand the data sets to the loaders."""
    if config.get('preprocess') is not None:
        ids = config.get('preprocess', 'dataset_id_map') or {}
        return [str(name) for name in ids]
    return [
        str(name)
        for key in config.mapping('datasets')
        for name in (config.get('datasets', key, 'dataset_id_map') or {}).values()
    ]
