"""With which weights losses on token graphs pull as hard at a new student as in our results, and when that is known."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import RandomSampler, SequentialSampler

from trg_torchdistill.cli.check.setup import Sides
from trg_torchdistill.cli.check.steps import Term
from trg_torchdistill.cli.data.classes import class_counts
from trg_torchdistill.cli.probe.weights import asks_for_pretrained
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.host import relation_losses, terms_of
from trg_torchdistill.losses import RelationLoss

# Of the other terms' gradient, with a new student: after a tenth of a training this is 0.3 (docs/lasting.md#weights).
START_RATIO = 1.2
START_RATIO_OF_LONG_TAILS = 0.5
USUAL_SAMPLERS = (None, RandomSampler, SequentialSampler)


@dataclass(frozen=True)
class Pull:
    """How hard a loss on token graphs pulls at a new student.

    Attributes:
        term: Its name in the YAML.
        ratio: Norm of its gradient divided by that of the other terms, sums of the norms of several.
        weights: By keyword, those at which that is ``wanted``, of which each of its terms has an equal part.
        wanted: The ratio to begin with, of several such losses a part for each.
    """

    term: str
    ratio: float
    weights: dict[str, float]
    wanted: float


@dataclass(frozen=True)
class Start:
    """How a stage begins.

    Attributes:
        ratio: What losses on token graphs are to pull, of the other terms' gradient; 0 where that is not known.
        unknown: Why it is not.
    """

    ratio: float = 0.0
    unknown: str = ''


def pulls_of(terms: Sequence[Term], criterion: object, start: Start) -> tuple[list[Pull], str]:
    """Returns the pulls of the losses on token graphs, and why there is none; of other losses no ratio is known.

    Args:
        terms: Of the first step.
        criterion: The host's total loss.
        start: How the stage begins.
    """
    losses = relation_losses(criterion)
    graphs = {name: loss for name, loss in losses.items() if loss.graph is not None}
    own = {name: [term for term in terms if term.loss == name and term.gradient_norm > 0] for name in graphs}
    own = {name: parts for name, parts in own.items() if parts}
    if not own or start.unknown:
        return [], start.unknown if own else ''
    others = sum(term.gradient_norm for term in terms if term.loss not in losses)
    if others == 0:
        return [], 'no other term pulls at the student'
    moving = [f'`{key}:` of `{name}`' for name in own for key in graphs[name].schedules if key.endswith('weight')]
    if moving:
        return [], f'{moving[0]} is a schedule'
    each = start.ratio / len(own)
    outer = {name: weight for name, (_, weight) in terms_of(criterion).items()}
    return [_pull(name, parts, graphs[name], outer[name], others, each) for name, parts in own.items()], ''


def _pull(name: str, parts: Sequence[Term], loss: RelationLoss, outer: float, others: float, wanted: float) -> Pull:
    norms = {f'{term.part}_weight': term.gradient_norm for term in parts}
    ratio = sum(norms.values()) / others
    if len(parts) == 1 or not norms.keys() <= inspect.signature(type(loss)).parameters.keys():
        return Pull(name, ratio, {'weight': outer * wanted / ratio}, wanted)
    share = wanted * others / len(parts)  # the weights of the parts stand beside that of the whole
    weights = {f'{term.part}_weight': term.weight / outer * share / term.gradient_norm for term in parts}
    return Pull(name, ratio, weights, wanted)


def start_of(config: Config, stage: tuple[str, ...], sides: Sides, data: Mapping[str, Any]) -> Start:
    """Returns how a stage begins.

    Args:
        config: The YAML with its data sets built.
        stage: The path of the stage.
        sides: The models.
        data: Those data sets by key of which the steps are.
    """
    if stage != config.stage_paths()[0]:
        return Start(unknown='only the first stage begins with a new student')
    loader = config.get(*stage, 'train_data_loader') or {}
    if loader.get('dataset_id') not in data:
        return Start(unknown='the steps are not on its data')
    if 'teacher' not in sides.trained:
        return Start(unknown='the teacher has random weights here')
    path, source = config.student_path, config.get(*stage, config.side_names[-1], 'src_ckpt')
    if 'student' in sides.trained or source or (path and asks_for_pretrained(config, path)):
        return Start(unknown='the student is not a new one')
    sampler = (loader.get('sampler') or {}).get('class_or_func')
    if loader.get('batch_sampler') or sampler not in USUAL_SAMPLERS:
        return Start(unknown="the loader's own sampler is not used here")
    counts = [count for count in class_counts(data[loader['dataset_id']]) or () if count > 0]
    if not counts:
        return Start(unknown='the data set does not tell the labels of its images')
    return Start(START_RATIO_OF_LONG_TAILS if max(counts) > 2 * min(counts) else START_RATIO)
