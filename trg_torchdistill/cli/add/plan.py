"""Decides what a YAML shall hold once TRG is added; pure, on the loaded values, not on the text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trg_torchdistill.cli.add.prefix import PREFIX, add_prefix
from trg_torchdistill.cli.add.targets import Stage
from trg_torchdistill.cli.probe.probe import Record
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import walk
from trg_torchdistill.cli.recipe.edit import unshared
from trg_torchdistill.cli.recipe.render import Inline
from trg_torchdistill.cli.tasks.task import Mask
from trg_torchdistill.errors import TRGError

HOST_DEFAULTS = ('default_pre_epoch_process_with_teacher', 'default_post_epoch_process_with_teacher')


@dataclass(frozen=True)
class Choice:
    """What is added, and where.

    Attributes:
        stage: Path of the training stage.
        teacher: Layer of the teacher.
        student: Layer of the student.
        weight: Weight of the ``trg`` term.
        contextual_weight: Weight of the ``contextual`` term.
        logits_only: Sides, ``teacher`` or ``student``, whose model returns something else than a tensor.
        recipe: Keywords of ``TRGLoss``, of :data:`~trg_torchdistill.losses.recipes.RECIPES`.
        mask: How the losses learn which tokens take part.
        logits_at: Module paths of the student whose output is the logits.
        packages: What the YAML needs under ``dependencies:``.
    """

    stage: Stage
    teacher: Record
    student: Record
    weight: float = 1.0
    contextual_weight: float = 1.0
    logits_only: Sequence[str] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    mask: Mask = field(default_factory=Mask)
    logits_at: Collection[str] = ('.',)
    packages: Sequence[str] = ('trg_torchdistill',)

    @property
    def needs_projection(self) -> bool:
        """Whether the widths of the tokens differ, so that the student's are projected."""
        return self.teacher.width != self.student.width

    @property
    def needs_wrapper(self) -> bool:
        """Whether the student is put into ``Student4TRG``, under which each of its paths begins with a prefix."""
        return self.needs_projection or bool(self.mask.wrapper)

    @property
    def student_module(self) -> str:
        """Path of the student's layer in the YAML."""
        return f'{PREFIX if self.needs_wrapper else ""}{self.student.path}'


@dataclass
class Plan:
    """What the YAML shall hold.

    Attributes:
        tree: Its values.
        changed: Paths of the values that were there and are replaced; everything else is added.
        notes: What the user must know, a sentence each.
    """

    tree: dict[str, Any]
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(config: Config, choice: Choice) -> Plan:
    """Returns the values of a YAML with TRG added.

    Raises:
        TRGError: If a value that must change with it is not what is expected.
    """
    plan = Plan(unshared(config.data))
    stage: dict[str, Any] = plan.tree
    for name in choice.stage:
        stage = stage[name]
    _add_dependencies(config, plan, choice.packages)
    _add_processes(plan, choice, stage)
    _add_teacher(config, plan, choice, stage)
    _add_student(config, plan, choice, stage)
    criterion = stage['criterion']['kwargs']
    terms = criterion['sub_terms']
    read = {value.removeprefix(PREFIX) for _, value in walk(terms) if isinstance(value, str)}
    if not criterion.get('model_term') and read.isdisjoint(choice.logits_at):
        plan.notes.append('no term reads the logits (module path `.`): TRG is meant to be added to a CE or KD term.')
    _add_terms(choice, terms)
    return plan


def _add_dependencies(config: Config, plan: Plan, packages: Sequence[str]) -> None:
    found = plan.tree.get('dependencies')
    if found is None:
        _insert(plan.tree, 'dependencies', [{'name': package} for package in packages], after=None)
        return
    listed = found if isinstance(found, list) else [found]
    names = [entry.get('name') if isinstance(entry, dict) else entry for entry in listed]
    names = [name[0] if isinstance(name, list) and name else name for name in names]
    missing = [package for package in packages if package not in names]
    if not missing:
        return
    if not isinstance(found, list):
        if not isinstance(found, str):
            raise TRGError(f'expected {config.where("dependencies")} to be a list, got {found!r}')
        plan.changed.append('dependencies')
    is_text = isinstance(listed[0], str)
    plan.tree['dependencies'] = [*listed, *(package if is_text else {'name': package} for package in missing)]


def _add_processes(plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    after = 'num_epochs'
    for key, purpose in (
        ('pre_epoch_process', 'the teacher is not put in eval mode and no temperature schedule moves'),
        ('post_epoch_process', 'the means of the terms are not logged'),
    ):
        ours, found = f'{key}_with_trg', stage.get(key)
        if found in HOST_DEFAULTS:
            plan.changed.append('.'.join((*choice.stage, key)))
            plan.notes.append(f'`{key}:` was {found!r}, which ours calls first.')
        elif found not in (None, ours):
            plan.notes.append(f'`{key}:` stays {found!r}: {purpose}, unless it calls `{ours}` itself.')
            after = key
            continue
        _insert(stage, key, ours, after)
        after = key


def _add_teacher(config: Config, plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    teacher = stage['teacher']
    _hook(config, choice.stage, 'teacher', teacher, [choice.teacher.path, *choice.mask.hooks.get('teacher', ())])
    if teacher.get('requires_grad') is None:
        _insert(teacher, 'requires_grad', False, 'wrapper')
        plan.notes.append('the teacher was not frozen: `requires_grad: False` is added.')
    _set_forward_proc(plan, choice, 'teacher', teacher)


def _add_student(config: Config, plan: Plan, choice: Choice, stage: dict[str, Any]) -> None:
    student = stage['student']
    _set_forward_proc(plan, choice, 'student', student)
    if choice.mask.note:
        plan.notes.append(choice.mask.note)
    if not choice.needs_wrapper:
        _hook(config, choice.stage, 'student', student, [choice.student.path, *choice.mask.hooks.get('student', ())])
        return
    if choice.needs_projection and not stage.get('optimizer'):
        raise TRGError(
            f'{config.where(*choice.stage)} has no `optimizer:` of its own, so that the projection from '
            f'{choice.student.width} to {choice.teacher.width} features would not be trained; add one to this stage'
        )
    rewritten = add_prefix(config, choice.stage, stage)
    plan.changed += rewritten
    if rewritten:
        plan.notes.append(
            f'{len(rewritten)} module path{"" if len(rewritten) == 1 else "s"} of the student, in hooks and terms, now '
            f'begin{"s" if len(rewritten) == 1 else ""} with `{PREFIX}`, as under `Student4TRG` they must.'
        )
    projectors = _projectors(choice)
    kwargs: dict[str, Any] = {'projectors': projectors} if projectors else {}
    kwargs |= _inline(choice.mask.wrapper)
    wrapper: dict[str, Any] = {'key': 'Student4TRG', 'kwargs': kwargs}
    outer = student.get('wrapper')
    options = outer.get('kwargs') if isinstance(outer, dict) else None
    if student.get('frozen_modules') or (isinstance(options, dict) and options.get('find_unused_parameters')):
        wrapper['kwargs']['find_unused_parameters'] = True
    if outer is not None:
        student['wrapper'] = None
        plan.changed.append('.'.join((*choice.stage, 'student', 'wrapper')))
        shown = outer.get('key') if isinstance(outer, dict) else outer
        plan.notes.append(
            f"the student's `wrapper:` was {shown!r}, now it is empty: `Student4TRG` wraps the student itself when "
            'several processes train.'
        )
    after = next((key for key in ('sequential', 'adaptations', 'forward_proc') if key in student), None)
    _insert(student, 'auxiliary_model_wrapper', wrapper, after)
    hooks = [choice.student_module, *(f'projectors.{name}' for name in projectors)]
    _hook(config, choice.stage, 'student', student, [*hooks, *choice.mask.hooks.get('student', ())])


def _projectors(choice: Choice) -> dict[str, Inline]:
    if not choice.needs_projection:
        return {}
    widths = {'in_features': choice.student.width, 'out_features': choice.teacher.width}
    projector = Inline(path=choice.student_module, io='output', **widths)
    if choice.student.tokens:
        projector['tokens'] = Inline(choice.student.tokens)
    return {projector_name(choice.student.path): projector}


def _add_terms(choice: Choice, terms: dict[str, Any]) -> None:
    pair: dict[str, Any] = {
        'student_module_path': choice.student_module,
        'student_module_io': 'output',
        'teacher_module_path': choice.teacher.path,
        'teacher_module_io': 'output',
    }
    tokens = {
        f'{side}_tokens': Inline(record.tokens)
        for side, record in (('student', choice.student), ('teacher', choice.teacher))
        if record.tokens
    }
    tokens |= _inline(choice.mask.loss)
    projection = {}
    if choice.needs_projection:
        projection['projection_module_path'] = f'projectors.{projector_name(choice.student.path)}'
    trg = {'key': 'TRGLoss', 'kwargs': {**pair, **projection, **choice.recipe, **tokens}}
    terms[_free(terms, 'trg')] = {'criterion': trg, 'weight': choice.weight}
    if choice.student.is_spatial and choice.teacher.is_spatial:
        contextual = {'key': 'TokenContextualLoss', 'kwargs': {**pair, **tokens}}
        terms[_free(terms, 'contextual')] = {'criterion': contextual, 'weight': choice.contextual_weight}


def _inline(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Inline(value) if isinstance(value, Mapping) else value for name, value in options.items()}


def projector_name(path: str) -> str:
    """Returns a name for the projection of a layer: its path, as an identifier."""
    name = ''.join(letter if letter.isalnum() else '_' for letter in path)
    return name if name.isidentifier() else f'layer_{name}'


def _hook(config: Config, stage: Stage, side: str, block: dict[str, Any], paths: list[str]) -> None:
    """Adds outputs to a model's ``forward_hook``."""
    if block.get('forward_hook') is None:
        after = next((key for key in ('auxiliary_model_wrapper', 'sequential', 'forward_proc') if key in block), None)
        _insert(block, 'forward_hook', {'input': [], 'output': paths}, after)
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


def _insert(block: dict[str, Any], key: str, value: Any, after: str | None) -> None:
    """Sets a key; a new one comes after another key, at the end if that is missing, in front of all for None."""
    if key in block or (after is not None and after not in block):
        block[key] = value
        return
    items = list(block.items())
    position = 0 if after is None else 1 + list(block).index(after)
    block.clear()
    block.update([*items[:position], (key, value), *items[position:]])


def _free(terms: dict[str, Any], name: str) -> str:
    """Returns a name that no term has."""
    names = [name, *(f'{name}_{number}' for number in range(2, len(terms) + 3))]
    return next(candidate for candidate in names if candidate not in terms)
