"""What the blocks of teacher and student in a stage become once TRG is added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trg_torchdistill.cli.add.choice import Choice, Plan
from trg_torchdistill.cli.add.prefix import PREFIX, add_prefix
from trg_torchdistill.cli.add.targets import Stage
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.render import Inline
from trg_torchdistill.errors import TRGError


def add_to_teacher(config: Config, plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    """Hooks the teacher's layer and freezes a teacher that nobody froze."""
    teacher = stage['teacher']
    _hook(config, choice.stage, 'teacher', teacher, [choice.teacher.path, *choice.mask.hooks.get('teacher', ())])
    if choice.trains_teacher:
        plan.notes.append(
            'a part of what is around the teacher is trained: the teacher is not put in eval mode, as without TRG.'
        )
    elif teacher.get('requires_grad') is None:
        insert(teacher, 'requires_grad', False, 'wrapper')
        plan.notes.append('the teacher was not frozen: `requires_grad: False` is added.')
    _set_forward_proc(plan, choice, 'teacher', teacher)


def add_to_student(config: Config, plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    """Hooks the student's layer, and puts what the losses need beside the student: a projection, a mask.

    Raises:
        TRGError: If the stage would not train the projection, or not run what is beside the student.
    """
    student = stage['student']
    _set_forward_proc(plan, choice, 'student', student)
    if choice.mask.note:
        plan.notes.append(choice.mask.note)
    of_mask = choice.mask.hooks.get('student', ())
    if not choice.needs_wrapper:
        _hook(config, choice.stage, 'student', student, [choice.student.path, *of_mask])
        return
    if choice.needs_projection and not stage.get('optimizer'):
        raise TRGError(
            f'{config.where(*choice.stage)} has no `optimizer:` of its own, so that the projection from '
            f'{choice.student.width} to {choice.teacher.width} features would not be trained; add one to this stage'
        )
    if student.get('sequential') and not choice.needs_projection:
        raise TRGError(
            f'{config.where(*choice.stage, "student", "sequential")} redesigns the student, and torchdistill runs no '
            '`Student4TRG` around a redesigned one, from which the losses have their mask'
        )
    if student.get('sequential'):
        raise TRGError(
            f'{config.where(*choice.stage, "student", "sequential")} redesigns the student, and torchdistill runs no '
            f'projections beside a redesigned one: {choice.student.path} is {choice.student.width} wide, '
            f'{choice.teacher.path} of the teacher {choice.teacher.width}; choose layers of equal width with '
            '`--student-layer` and `--teacher-layer`'
        )
    _add_wrapper(config, plan, choice, stage)
    if choice.needs_projection and stage['optimizer'].get(
        'module_wise_configs'
    ):  # without their names they would not be trained
        stage['optimizer']['module_wise_configs'].append({'module': 'projectors'})
    if student.get('wrapper') is not None:
        outer = student['wrapper']
        student['wrapper'] = None
        plan.changed.append('.'.join((*choice.stage, 'student', 'wrapper')))
        shown = outer.get('key') if isinstance(outer, dict) else outer
        plan.notes.append(
            f"the student's `wrapper:` was {shown!r}, now it is empty: `Student4TRG` wraps the student itself when "
            'several processes train.'
        )
    projections = [f'projectors.{choice.projector_name}'] * choice.needs_projection
    _hook(config, choice.stage, 'student', student, [choice.student_path, *projections, *of_mask])


def _add_wrapper(config: Config, plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    """Puts a ``Student4TRG`` around the student, or around its wrapper."""
    student = stage['student']
    kwargs = {**_projectors(choice), **inline_options(choice.mask.wrapper)}
    wrapper = {'key': 'Student4TRG', 'kwargs': kwargs}
    if choice.is_wrapped:
        inner = student['auxiliary_model_wrapper']
        student['auxiliary_model_wrapper'] = {**wrapper, 'kwargs': {'inner': inner, **kwargs}}
        plan.nested = (*choice.stage, 'student', 'auxiliary_model_wrapper')
        plan.notes.append(f"the student's wrapper `{inner['key']}` is now the `inner:` one of `Student4TRG`, as it is.")
        return
    rewritten = add_prefix(config, choice.stage, stage)
    plan.changed += rewritten
    if rewritten:
        plan.notes.append(
            f'{len(rewritten)} module path{"" if len(rewritten) == 1 else "s"} of the student, in hooks and terms, now '
            f'begin{"s" if len(rewritten) == 1 else ""} with `{PREFIX}`, as under `Student4TRG` they must.'
        )
    outer = student.get('wrapper')
    options = outer.get('kwargs') if isinstance(outer, dict) else None
    if student.get('frozen_modules') or (isinstance(options, dict) and options.get('find_unused_parameters')):
        kwargs['find_unused_parameters'] = True
    after = next((key for key in ('sequential', 'adaptations', 'forward_proc') if key in student), None)
    insert(student, 'auxiliary_model_wrapper', wrapper, after)


def _projectors(choice: Choice) -> dict[str, Any]:
    """Returns the option of ``Student4TRG`` with one projection, nothing where the widths are equal."""
    if not choice.needs_projection:
        return {}
    widths = {'in_features': choice.student.width, 'out_features': choice.teacher.width}
    projector = Inline(path=choice.student_path, io='output', **widths)
    if choice.student.tokens:
        projector['tokens'] = Inline(choice.student.tokens)
    return {'projectors': {choice.projector_name: projector}}


def inline_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of which each mapping is written on one line."""
    return {name: Inline(value) if isinstance(value, Mapping) else value for name, value in options.items()}


def _hook(config: Config, stage: Stage, side: str, block: dict[str, Any], paths: list[str]) -> None:
    """Adds outputs to a model's ``forward_hook``."""
    if block.get('forward_hook') is None:
        after = next((key for key in ('auxiliary_model_wrapper', 'sequential', 'forward_proc') if key in block), None)
        insert(block, 'forward_hook', {'input': [], 'output': paths}, after)
        return
    hooks = block['forward_hook']
    found = hooks.get('output') if isinstance(hooks, dict) else None
    if not isinstance(hooks, dict) or not isinstance(found or [], list):
        where = config.where(*stage, side, 'forward_hook')
        raise TRGError(f'expected {where} to be {{input: [...], output: [...]}}, got {hooks!r}')
    found = found or []
    hooks['output'] = [*found, *(path for path in paths if path not in found)]


def _set_forward_proc(plan: Plan, choice: Choice, side: str, block: dict[str, Any]) -> None:
    """Gives a model that returns more than logits the process that takes the logits out."""
    ours, found = 'forward_logits_only', block.get('forward_proc')
    if side not in choice.logits_only or found == ours:
        return
    if found not in (None, 'forward_batch_only'):
        plan.notes.append(f'the {side} returns no tensor; `forward_proc:` stays {found!r}, it must return the logits.')
        return
    if found is not None:
        plan.changed.append('.'.join((*choice.stage, side, 'forward_proc')))
    block['forward_proc'] = ours
    plan.notes.append(
        f'the {side} returns no tensor: its `forward_proc:` is now {ours!r}. `trg-torchdistill train` evaluates such a '
        "model, torchdistill's example trainer does not."
    )


def insert(block: dict[str, Any], key: str, value: Any, after: str | None) -> None:
    """Sets a key; a new one comes after another key, at the end if that is missing, in front of all for None."""
    if key in block or (after is not None and after not in block):
        block[key] = value
        return
    items = list(block.items())
    position = 0 if after is None else 1 + list(block).index(after)
    block.clear()
    block.update([*items[:position], (key, value), *items[position:]])
