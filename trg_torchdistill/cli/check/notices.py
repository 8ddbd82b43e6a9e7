"""What lets a training run and still go wrong, found in a YAML and in the first step of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from trg_torchdistill.cli.check.setup import Sides
from trg_torchdistill.cli.check.steps import FirstStep
from trg_torchdistill.cli.check.unread_keys import Notice, notice
from trg_torchdistill.cli.probe.trial import guess_warning
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.host import Box, relation_losses
from trg_torchdistill.wrappers import Student4TRG

Path = tuple[str, ...]
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
    found: list[Notice] = []
    explained = {
        term.name for term in first.terms for frozen in first.frozen if f'{term.name}.'.startswith(f'{frozen}.')
    }
    for facts in first.facts:
        for hint in facts.hints('teacher' in sides.trained):
            explained |= {hint.explains} if hint.explains else set()
            found.append(notice(config, hint.kind, _keyword(stage, facts.term, hint.keyword), hint.text))
    found += _frozen_notices(config, stage, first)
    found += [one for term, one in _silent_notices(config, stage, box, first) if term not in explained]
    found += _schedule_notices(config, stage, box)
    teacher = sides.model('teacher')
    if teacher is not None:
        found += _teacher_notices(config, stage, box, teacher)
    found += _student_notices(config, stage, box, first)
    found += _order_notices(config, stage, sides)
    return found


def missing_weights(config: Config, path: Path, file: str) -> Notice:
    """Returns the warning about a file of weights that is not there (yet)."""
    kind = 'teacher_weights' if path[-1].startswith('teacher') else 'student_weights'
    text = f'{{where}} is {file}, which does not exist: `train` refuses to start without it'
    return notice(config, kind, (*path, 'src_ckpt'), text)


def guessed_size(config: Config, sides: Sides, paths: Mapping[str, Sequence[str]]) -> list[Notice]:
    """Returns the warning about a size of the images that is a guess, if there is one.

    Args:
        config: The YAML.
        sides: The models and the size.
        paths: By side, the modules whose outputs become tokens.
    """
    text = guess_warning(sides.size, [(sides.probes[side], paths[side]) for side in sides.probes])
    return (
        [] if text is None else [notice(config, 'guessed_size', ('datasets',), f'{text}; the data stand in {{where}}')]
    )


def _keyword(stage: Path, term: str, keyword: str) -> Path:
    return (*stage, 'criterion', 'kwargs', 'sub_terms', term, 'criterion', 'kwargs', keyword)


def _silent_notices(config: Config, stage: Path, box: Box, first: FirstStep) -> Iterator[tuple[str, Notice]]:
    for term in first.terms:
        name = term.name
        if name not in box.terms:
            name = name.rpartition('.')[0]
        if term.share is not None and term.weight != 0 and term.share < SILENT_SHARE:
            place = (*stage, 'criterion', 'kwargs', 'sub_terms', name, 'weight')
            text = (
                f'`{term.name}` is silent: its share of the gradient on the student is {term.share:.1e}; raise its '
                'weight, {where}, if it stays so with trained weights'
            )
            yield term.name, notice(config, 'silent_term', place, text)


def _schedule_notices(config: Config, stage: Path, box: Box) -> Iterator[Notice]:
    if config.get(*stage, 'num_epochs') != 1:
        return
    for name, loss in relation_losses(box.criterion).items():
        for keyword in loss.schedules:
            text = (
                f'`{keyword}:` of `{name}` is a schedule, and {{where}} is 1: it keeps its start; train longer or '
                'write a number'
            )
            yield notice(config, 'schedule_of_one_epoch', (*stage, 'num_epochs'), text)


def _frozen_notices(config: Config, stage: Path, first: FirstStep) -> Iterator[Notice]:
    place = (*_side(config, stage, config.side_names[-1]), 'frozen_modules')
    for path in dict.fromkeys(first.frozen.values()):
        terms = [f'`{term}`' for term, frozen in first.frozen.items() if frozen == path]
        text = (
            f'{", ".join(terms)} {"have" if len(terms) > 1 else "has"} no gradient on the student: its `{path}` and '
            'all before it are frozen; change {where}, hook a later layer, or remove what has no gradient'
        )
        yield notice(config, 'frozen_layer', place, text)


def _teacher_notices(config: Config, stage: Path, box: Box, teacher: nn.Module) -> Iterator[Notice]:
    place = _side(config, stage, 'teacher')
    own = {id(parameter) for parameter in teacher.parameters()}
    trained = sum(value.requires_grad and id(value) in own for value in box.model('teacher').parameters())
    if trained:
        text = (
            f'{trained} parameters of the teacher require a gradient: it is trained along; write '
            '`requires_grad: False` in {where}'
        )
        yield notice(config, 'teacher_is_trained', (*place, 'requires_grad'), text)
    if any(parameter.requires_grad for parameter in box.model('teacher').parameters()):
        return
    moving = [module for module in box.model('teacher').modules() if module.training]
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
        yield notice(config, 'teacher_in_train_mode', (*stage, 'pre_epoch_process'), text)


def _student_notices(config: Config, stage: Path, box: Box, first: FirstStep) -> Iterator[Notice]:
    student, name = box.student, config.side_names[-1]
    if first.unreached:
        modules = list(dict.fromkeys(parameter.rpartition('.')[0] or parameter for parameter in first.unreached))
        shown = ', '.join(f'`{module}`' for module in modules[:MAX_NAMES])
        more = f' and {len(modules) - MAX_NAMES} more' if len(modules) > MAX_NAMES else ''
        text = (
            f'no term trains {shown}{more} of the student; if it is its classifier, add a logit term '
            '(`CrossEntropyLoss`, `KDLoss`) to {where}. Under DistributedDataParallel the second step fails'
        )
        yield notice(config, 'no_logit_term', (*stage, 'criterion', 'kwargs', 'sub_terms'), text)
    if not isinstance(student, Student4TRG):
        return
    trained = {id(parameter) for parameter in box.trained}
    left_out = [part for part, module in student.projectors.items() if not _is_in(module, trained)]
    if left_out:
        text = (
            f'the optimizer does not train the projections {", ".join(f"`{part}`" for part in left_out)}; add '
            "`- module: 'projectors'` to {where}"
        )
        yield notice(config, 'untrained_projectors', (*stage, 'optimizer', 'module_wise_configs'), text)
    place = _side(config, stage, name)
    if config.get(*place, 'wrapper'):
        text = '{where} wraps `Student4TRG` from outside, which is refused on GPUs; leave `wrapper:` empty'
        yield notice(config, 'outer_wrapper', (*place, 'wrapper'), text)


def _order_notices(config: Config, stage: Path, sides: Sides) -> Iterator[Notice]:
    for name in config.side_names:
        side = 'teacher' if name == 'teacher' else 'student'
        place, probe = (*_side(config, stage, name), 'forward_hook', 'output'), sides.probes[side]
        for path in config.get(*place) or ():
            record = probe.record(path) or probe.record(path.removeprefix('student_model.'))
            if record is not None and not record.is_in_order:
                text = (
                    f'the tokens of `{path}` of the {side} are in windows or in another order, not in the rows of the '
                    'image: a loss pairs the wrong cells, unless the other model has the same order; hook in {where} a '
                    'module that is listed above with its tokens'
                )
                yield notice(config, 'tokens_out_of_order', place, text)


def _side(config: Config, stage: Path, name: str) -> Path:
    """Returns where the block of a model stands for a stage: a later stage without one keeps that of an earlier."""
    stages = config.stage_paths()
    before = [path for path in stages[: stages.index(stage) + 1] if config.get(*path, name)]
    return (*(before[-1] if before else stage), name)


def _is_in(module: nn.Module, trained: set[int]) -> bool:
    return all(id(parameter) in trained for parameter in module.parameters())


def _drops(module: nn.Module) -> bool:
    """Whether a module in train mode leaves something out at random; timm and torchvision name the rate differently."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    rate = getattr(module, 'drop_prob', None) or getattr(module, 'p', None)
    return type(module).__name__ in ('StochasticDepth', 'DropPath') and bool(rate)
