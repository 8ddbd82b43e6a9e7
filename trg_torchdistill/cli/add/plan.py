"""Decides what a YAML shall hold once TRG is added; pure, on the loaded values, not on the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trg_torchdistill.cli.add.choice import Choice, Plan
from trg_torchdistill.cli.add.prefix import PREFIX
from trg_torchdistill.cli.add.sides import add_to_student, add_to_teacher, inline_options, insert
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import parse_deferred, walk
from trg_torchdistill.cli.recipe.edit import unshared
from trg_torchdistill.cli.recipe.render import Inline
from trg_torchdistill.errors import TRGError

OURS = '_with_trg'
HOST_DEFAULTS = ('default_pre_epoch_process_with_teacher', 'default_post_epoch_process_with_teacher')


def make_plan(config: Config, choice: Choice) -> Plan:
    """Returns the values of a YAML with TRG added.

    Raises:
        TRGError: If a value that must change with it is not what is expected.
    """
    plan = Plan(unshared(parse_deferred(config.text)))  # not `config.data`, where `~` is written out
    stage: dict[str, Any] = plan.tree
    for name in choice.stage:
        stage = stage[name]
    _add_dependencies(config, plan, choice.packages)
    _add_processes(plan, choice, stage)
    add_to_teacher(config, plan, choice, stage)
    add_to_student(config, plan, choice, stage)
    criterion = stage['criterion']['kwargs']
    terms = criterion['sub_terms']
    read = {value.removeprefix(PREFIX) for _, value in walk(terms) if isinstance(value, str)}
    if not criterion.get('model_term') and read.isdisjoint(choice.logits_at):
        plan.notes.append('no term reads the logits (module path `.`): TRG is meant to be added to a CE or KD term.')
    _add_terms(plan, choice, stage, terms)
    if config.get(*config.student_path, 'dst_ckpt') is not None:
        plan.notes.append('`dst_ckpt:` is the old one: name another file, or one training writes over the other.')
    return plan


def _add_dependencies(config: Config, plan: Plan, packages: Sequence[str]) -> None:
    found = plan.tree.get('dependencies')
    if found is None:
        insert(plan.tree, 'dependencies', [{'name': package} for package in packages], after=None)
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
        ours, found = f'{key}{OURS}', stage.get(key)
        if found in HOST_DEFAULTS:
            plan.changed.append('.'.join((*choice.stage, key)))
            plan.notes.append(f'`{key}:` was {found!r}, which ours calls first.')
        elif found not in (None, ours):
            plan.notes.append(f'`{key}:` stays {found!r}: {purpose}, unless it calls `{ours}` itself.')
            after = key
            continue
        insert(stage, key, ours, after)
        after = key


def _add_terms(plan: Plan, choice: Choice, stage: dict[str, Any], terms: dict[str, Any]) -> None:
    pair: dict[str, Any] = {
        'student_module_path': choice.student_path,
        'student_module_io': 'output',
        'teacher_module_path': choice.teacher.path,
        'teacher_module_io': 'output',
    }
    tokens = {
        f'{side}_tokens': Inline(record.tokens)
        for side, record in (('student', choice.student), ('teacher', choice.teacher))
        if record.tokens
    }
    tokens |= inline_options(choice.mask.loss)
    projection = {}
    if choice.needs_projection:
        projection['projection_module_path'] = f'projectors.{choice.projector_name}'
    options = inline_options(choice.recipe.trg)
    if stage['pre_epoch_process'] != f'pre_epoch_process{OURS}' or stage.get('num_epochs') == 1:
        options = {name: value for name, value in options.items() if not isinstance(value, Inline)}
    trg = {'key': 'TRGLoss', 'kwargs': {**pair, **projection, **options, **tokens}}
    terms[_free(terms, 'trg')] = {'criterion': trg, 'weight': choice.weight}
    if not choice.recipe.contextual_weight:
        return
    for record in (choice.student, choice.teacher):
        if not record.is_spatial:
            one = f'`{record.path}` has one: choose an earlier layer'
            plan.notes.append(f'no contextual term is written: it relates the tokens of one image, and {one}.')
            return
    contextual = {'key': 'TokenContextualLoss', 'kwargs': {**pair, **tokens}}
    terms[_free(terms, 'contextual')] = {'criterion': contextual, 'weight': choice.recipe.contextual_weight}


def _free(terms: dict[str, Any], name: str) -> str:
    """Returns a name that no term has."""
    names = [name, *(f'{name}_{number}' for number in range(2, len(terms) + 3))]
    return next(candidate for candidate in names if candidate not in terms)
