"""What lets a training run and still go wrong, found in a YAML and in the first step of a stage."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from trg_torchdistill.cli.check.setup import Sides
from trg_torchdistill.cli.check.steps import FirstStep
from trg_torchdistill.cli.check.unread_keys import Notice, notice
from trg_torchdistill.cli.probe.trial import guess_warning
from trg_torchdistill.cli.recipe.config import Config, value_at
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.wrappers import Student4TRG

Path = tuple[str, ...]
Found = Iterator[tuple[str, Path, str]]  # arguments of `notice`: kind, place and text
SILENT_SHARE = 1e-4
MAX_NAMES = 4
DEPENDENCY = "`dependencies: [{name: 'trg_torchdistill'}]`"


def stage_notices(config: Config, stage: Path, box: Box, first: FirstStep, sides: Sides) -> list[Notice]:
    """Returns the warnings of one stage.

    Args:
        config: The YAML.
        stage: Path of the stage.
        box: The host's box in that stage, after its first step.
        first: That step.
        sides: The plain models.
    """
    found = [
        *_relation_notices(config, stage, box, first, sides),
        *_schedule_notices(config, stage, box),
        *_teacher_notices(config, stage, box, sides),
        *_student_notices(config, stage, box, first),
        *_order_notices(config, stage, sides),
    ]
    return [notice(config, *one) for one in found]


def missing_weights(config: Config, path: Path, file: str, is_refused: bool) -> Notice:
    """Returns the warning about a file of weights that is not there (yet); ``train`` refuses it, others do not."""
    kind = 'teacher_weights' if path[-1].startswith('teacher') else 'student_weights'
    outcome = '`train` refuses to start without it' if is_refused else 'the example trainer starts with random weights'
    text = f'{{where}} is {file}, which does not exist: {outcome}'
    return notice(config, kind, (*path, 'src_ckpt'), text)


def files_under_home(config: Config, path: Path) -> list[Notice]:
    """Returns a warning for each file of a model's block under ``~``, which only ``train`` writes out."""
    block = value_at(parse_deferred(config.text), path) or {}
    return [
        notice(
            config,
            'home',
            (*path, key),
            '{where} begins with `~`, for the example trainer the name of a folder; write '
            f'{os.path.expanduser(block[key])}',
        )
        for key in ('src_ckpt', 'dst_ckpt')
        if str(block.get(key)).startswith('~')
    ]


def guessed_size(config: Config, sides: Sides, hooked: Mapping[str, Collection[str]]) -> list[Notice]:
    """Returns the warning about a size of the images that is a guess, if there is one.

    Args:
        config: The YAML.
        sides: The models and the size.
        hooked: By side, the paths of the modules whose outputs become tokens.
    """
    layers = [
        (probe, [record.path for record in probe.records if record.is_spatial and record.path in hooked[side]])
        for side, probe in sides.probes.items()
    ]
    text = guess_warning(sides.task, sides.size, layers)
    if text is None:
        return []
    return [notice(config, 'guessed_size', ('datasets',), f'{text}; the data stand in {{where}}')]


def _relation_notices(config: Config, stage: Path, box: Box, first: FirstStep, sides: Sides) -> Found:
    """Yields what the TRG terms have to say, and the terms without a gradient where none of that explains it."""
    terms = (*stage, 'criterion', 'kwargs', 'sub_terms')
    silent = {term.name: term for term in first.terms if term.loss in box.terms and term.weight != 0}
    for facts in first.facts:
        for hint in facts.hints('teacher' in sides.trained):
            silent.pop(hint.explains or '', None)
            yield hint.kind, (*terms, facts.term, 'criterion', 'kwargs', hint.keyword), hint.text
    place = (*_side(config, stage, config.side_names[-1]), 'frozen_modules')
    for path in dict.fromkeys(first.frozen.values()):
        frozen = [term for term, layer in first.frozen.items() if layer == path]
        text = (
            f'`{"`, `".join(frozen)}` {"have" if len(frozen) > 1 else "has"} no gradient on the student: its `{path}` '
            'and all before it are frozen; change {where}, hook a later layer, or remove what has no gradient'
        )
        yield 'frozen_layer', place, text
    for name, term in silent.items():
        if term.share is not None and term.share < SILENT_SHARE and term.loss not in first.frozen:
            text = (
                f'`{name}` is silent: its share of the gradient on the student is {term.share:.1e}; raise its weight, '
                '{where}, if it stays so with trained weights'
            )
            yield 'silent_term', (*terms, term.loss, 'weight'), text


def _schedule_notices(config: Config, stage: Path, box: Box) -> Found:
    if config.get(*stage, 'num_epochs') != 1:
        return
    for name, loss in relation_losses(box.criterion).items():
        for keyword in loss.schedules:
            text = (
                f'`{keyword}:` of `{name}` is a schedule, and {{where}} is 1: it keeps its start; train longer or '
                'write a number'
            )
            yield 'schedule_of_one_epoch', (*stage, 'num_epochs'), text


def _teacher_notices(config: Config, stage: Path, box: Box, sides: Sides) -> Found:
    if 'teacher' not in sides.probes:
        return
    of_stage = box.model('teacher')
    own = {id(parameter) for parameter in sides.probes['teacher'].model.parameters()}
    trained = [id(parameter) in own for parameter in of_stage.parameters() if parameter.requires_grad]
    if any(trained):
        text = (
            f'{sum(trained)} parameters of the teacher require a gradient: it is trained along; write '
            '`requires_grad: False` in {where}'
        )
        yield 'teacher_is_trained', (*_side(config, stage, 'teacher'), 'requires_grad'), text
    if trained:
        return
    moving = [module for module in of_stage.modules() if module.training]
    norms = sum(isinstance(module, _BatchNorm) and module.track_running_stats for module in moving)
    drops = sum(_drops(module) for module in moving)
    parts = [f'{norms} BatchNorm layers change their statistics'] * bool(norms)
    parts += [f'{drops} dropout layers are on'] * bool(drops)
    if parts:
        text = (
            f'the teacher is in train mode: {" and ".join(parts)}; write '
            "`pre_epoch_process: 'pre_epoch_process_with_trg'` in {where}"
        )
        text += '' if 'trg_torchdistill' in str(config.get('dependencies')) else f', and {DEPENDENCY} at the top'
        yield 'teacher_in_train_mode', (*stage, 'pre_epoch_process'), text


def _student_notices(config: Config, stage: Path, box: Box, first: FirstStep) -> Found:
    student = box.student
    if first.unreached:
        modules = list(dict.fromkeys(parameter.rpartition('.')[0] or parameter for parameter in first.unreached))
        shown = ', '.join(f'`{module}`' for module in modules[:MAX_NAMES])
        more = f' and {len(modules) - MAX_NAMES} more' if len(modules) > MAX_NAMES else ''
        text = (
            f'no term trains {shown}{more} of the student; if it is its classifier, add a logit term '
            '(`CrossEntropyLoss`, `KDLoss`) to {where}. Under DistributedDataParallel the second step fails'
        )
        yield 'no_logit_term', (*stage, 'criterion', 'kwargs', 'sub_terms'), text
    if not isinstance(student, Student4TRG):
        return
    trained = {id(parameter) for parameter in box.trained}
    left_out = [
        name
        for name, part in student.projectors.items()
        if not all(id(parameter) in trained for parameter in part.parameters())
    ]
    if left_out:
        text = (
            f'the optimizer does not train the projections `{"`, `".join(left_out)}`; add '
            "`- module: 'projectors'` to {where}"
        )
        yield 'untrained_projectors', (*stage, 'optimizer', 'module_wise_configs'), text
    place = (*_side(config, stage, config.side_names[-1]), 'wrapper')
    if config.get(*place):
        text = '{where} wraps `Student4TRG` from outside, which is refused on GPUs; leave `wrapper:` empty'
        yield 'outer_wrapper', place, text


def _order_notices(config: Config, stage: Path, sides: Sides) -> Found:
    for side, name in zip(sides.probes, config.side_names, strict=True):
        place, probe = (*_side(config, stage, name), 'forward_hook', 'output'), sides.probes[side]
        for path in config.get(*place) or ():
            record = probe.record(path)
            if record is not None and not record.is_in_order:
                text = (
                    f'the tokens of `{path}` of the {side} are in windows or in another order, not in the rows of the '
                    'image: a loss pairs the wrong cells, unless the other model has the same order; hook in {where} a '
                    'module that is listed above with its tokens'
                )
                yield 'tokens_out_of_order', place, text


def _side(config: Config, stage: Path, name: str) -> Path:
    """Returns where the block of a model stands for a stage: a later stage without one keeps that of an earlier."""
    stages = config.stage_paths()
    before = [path for path in stages[: stages.index(stage) + 1] if config.get(*path, name)]
    return (*(before[-1] if before else stage), name)


def _drops(module: nn.Module) -> bool:
    """Whether a module in train mode leaves something out at random; timm and torchvision name the rate differently."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    rate = getattr(module, 'drop_prob', None) or getattr(module, 'p', None)
    return type(module).__name__ in ('StochasticDepth', 'DropPath') and bool(rate)
