"""Finds the training stage of a YAML that TRG is added to, or says why there is none."""

from __future__ import annotations

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import walk
from trg_torchdistill.errors import TRGError
from trg_torchdistill.losses import LOSSES
from trg_torchdistill.wrappers import Student4TRG

Stage = tuple[str, ...]


def choose_stage(config: Config, name: str | None = None) -> Stage:
    """Returns the path of the stage: the last one with a teacher, unless it is named.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`.
        name: Name of a stage, ``stage2`` for example, from ``--stage``.

    Raises:
        TRGError: If there is no teacher, no such stage, or the stage is one that TRG cannot be added to.
    """
    if config.teacher_path is None:
        raise TRGError(
            f'expected {config.path} to have a teacher, got none under `models:`; TRG relates the student to a '
            'teacher: start from a distillation YAML, with `teacher_model:` and `student_model:`'
        )
    config.mapping('train')
    stages = {path[-1]: path for path in config.stage_paths()}
    with_teacher = {key: path for key, path in stages.items() if config.get(*path, 'teacher') is not None}
    if name is not None and name not in with_teacher:
        found = ', '.join(f'`{key}`' for key in with_teacher if key != 'train') or 'no stages'
        what = 'a stage without `teacher:`' if name in stages else f'{name!r}{nearest(name, stages)}'
        raise TRGError(f'expected `--stage` to be a stage with a teacher in {config.path} ({found}), got {what}')
    if not with_teacher:
        raise TRGError(f'expected {config.where("train")} to have a block `teacher:`, got none; add one')
    stage = with_teacher[name or list(with_teacher)[-1]]
    reason = _refusal(config, stage)
    if reason is None:
        return stage
    others = [key for key, path in with_teacher.items() if path != stage and _refusal(config, path) is None]
    hint = f'. Another stage can take it: `--stage {others[-1]}`' if others else ''
    raise TRGError(f'{reason}{hint}')


def _refusal(config: Config, stage: Stage) -> str | None:
    """Returns why TRG cannot be added to a stage, None if it can."""
    for side in ('teacher', 'student'):
        config.mapping(*stage, side)
    keys = {value for path, value in walk(config.get(*stage)) if path[-1:] == ('key',) and isinstance(value, str)}
    if not keys.isdisjoint(each.__name__ for each in (*LOSSES, Student4TRG)):
        return (
            f'{config.where(*stage)} has TRG in it already; change its `trg:` term by hand, or start from the YAML '
            'without it'
        )
    if not isinstance(config.get(*stage, 'criterion', 'kwargs', 'sub_terms'), dict):
        return (
            f'expected {config.where(*stage, "criterion")} to have terms under `kwargs.sub_terms`, as '
            '`WeightedSumLoss` has, got none; TRG is added to them'
        )
    return None


def check_teacher(config: Config, stage: Stage, probe: ModelProbe) -> bool:
    """Returns whether the stage trains something beside the teacher, such as a part of a wrapper around it.

    Args:
        config: The YAML.
        stage: Path of the stage.
        probe: The teacher as the stage uses it.

    Raises:
        TRGError: If it trains the teacher itself.
    """
    block = config.mapping(*stage, 'teacher')
    is_trained = block.get('requires_grad') is True or (
        block.get('requires_grad') is None and block.get('auxiliary_model_wrapper') is not None
    )
    if is_trained and any(parameter.requires_grad for parameter in probe.model.parameters()):
        raise TRGError(
            f'{config.where(*stage, "teacher", "requires_grad")} is True: the teacher is trained; TRG needs a frozen '
            f'one: set `requires_grad: False`, or name it under {config.where(*stage, "teacher", "frozen_modules")}'
        )
    return is_trained
