"""Writes the YAMLs of the experiments: ``python -m configs.generator``. Change the tables here, not the YAMLs.

A pair gives ``DATA/kd/STUDENT_from_TEACHER.yaml`` and the same under ``trg``, which differ in TRG's keys only; each
model that is trained alone, teacher or baseline, gives ``DATA/ce/MODEL.yaml``.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Any

from configs.generator.experiments import PAIRS, Model
from configs.generator.recipes import Recipe
from configs.generator.text import block

FOLDER = Path(__file__).resolve().parents[1]
ENDS = {'student_module_io': 'output', 'teacher_module_io': 'output'}
CE_TERM = {
    'criterion': {'key': 'CrossEntropyLoss', 'kwargs': {'reduction': 'mean'}},
    'criterion_wrapper': {
        'key': 'SimpleLossWrapper',
        'kwargs': {
            'input': {'is_from_teacher': False, 'module_path': '.', 'io': 'output'},
            'target': {'uses_label': True},
        },
    },
    'weight': 1.0,
}


def files() -> dict[str, str]:
    """Text of every YAML by its path under ``configs``."""
    found: dict[str, str] = {}
    for recipe, pairs in PAIRS:
        for teacher, student in pairs:
            alone = [student, *([teacher] if _is_trained_here(recipe, teacher) else [])]
            for model in alone:
                found[f'{recipe.root}/{recipe.folder("ce")}/{model.name}.yaml'] = _alone(recipe, model)
            for method in ('kd', 'trg'):
                name = f'{student.name}_from_{teacher.name}'
                found[f'{recipe.root}/{recipe.folder(method)}/{name}.yaml'] = _pair(recipe, teacher, student, method)
    return found


def main() -> None:
    """Writes them, and removes those that are no longer generated."""
    wanted = files()
    for recipe, _ in PAIRS:
        for path in (FOLDER / recipe.root / recipe.name).rglob('*.yaml'):
            if path.relative_to(FOLDER).as_posix() not in wanted:
                path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding='utf-8')


def _is_trained_here(recipe: Recipe, teacher: Model) -> bool:
    return recipe.teachers is None and not _has_weights(recipe, teacher)


def _has_weights(recipe: Recipe, teacher: Model) -> bool:
    """Whether there are published weights for its data."""
    return bool(teacher.weights) and recipe.has_published_weights


def _alone(recipe: Recipe, model: Model) -> str:
    models = {'model': _model(recipe, model, None, f'{recipe.folder("ce")}/{model.name}.pt')}
    sides = {'model': _side(requires_grad=True)}
    return _file(f'{model.name} on {recipe.title}, with cross entropy.', recipe, models, sides, {'ce': CE_TERM}, model)


def _pair(recipe: Recipe, teacher: Model, student: Model, method: str) -> str:
    name = f'{student.name}_from_{teacher.name}.pt'
    source = None if _has_weights(recipe, teacher) else f'{recipe.teachers or recipe.folder("ce")}/{teacher.name}.pt'
    models = {
        'teacher_model': _model(recipe, teacher, source, None),
        'student_model': _model(recipe, student, None, f'{recipe.folder(method)}/{name}'),
    }
    head = f'{student.name} from {teacher.name} on {recipe.title}: knowledge distillation.'
    temperature, alpha = recipe.kd
    paths = {'student_module_path': '.', 'student_module_io': 'output', 'teacher_module_path': '.'}
    kd = {**paths, 'teacher_module_io': 'output', 'temperature': temperature, 'alpha': alpha, 'reduction': 'batchmean'}
    terms = {'kd': {'criterion': {'key': 'KDLoss', 'kwargs': kd}, 'weight': 1.0}}
    sides = {'teacher': _side(requires_grad=False), 'student': _side(requires_grad=True)}
    if method == 'trg':
        head = f'{student.name} from {teacher.name} on {recipe.title}: the YAML of this name under kd, and TRG.'
        sides['teacher']['forward_hook'] = {'input': [], 'output': [teacher.layer]}
        sides['student'].update(_wrapper(teacher, student))
        terms['trg'] = _trg_term(teacher, student)
    return _file(head, recipe, models, sides, terms, student, has_trg=method == 'trg')


def _model(recipe: Recipe, model: Model, source: str | None, target: str | None) -> dict[str, Any]:
    """A model's block; it has its published weights if it is a teacher without a source."""
    is_published = source is None and target is None
    kwargs = {**model.kwargs, 'num_classes': recipe.num_classes, **(model.weights if is_published else {})}
    found: dict[str, Any] = {'key': model.key or model.name, 'kwargs': kwargs}
    found['src_ckpt'] = source and f'./resource/ckpt/{source}'
    if target is not None:
        found['dst_ckpt'] = f'./resource/ckpt/{target}'
    return found


def _side(requires_grad: bool) -> dict[str, Any]:
    """A side's block. Several processes need the wrapper of what they train; a single one ignores it."""
    side = {'forward_proc': 'forward_batch_only', 'sequential': [], 'wrapper': None, 'requires_grad': requires_grad}
    return {**side, 'wrapper': 'DistributedDataParallel', 'frozen_modules': []} if requires_grad else side


def _slot(model: Model) -> str:
    """Name of the student's projection."""
    return model.layer.replace('.', '_')


def _wrapper(teacher: Model, student: Model) -> dict[str, Any]:
    projector = {'path': f'student_model.{student.layer}', 'io': 'output'}
    projector |= {'in_features': student.width, 'out_features': teacher.width}
    if student.tokens:
        projector['tokens'] = student.tokens
    hooked = [f'student_model.{student.layer}', f'projectors.{_slot(student)}']
    return {
        'wrapper': None,
        'auxiliary_model_wrapper': {'key': 'Student4TRG', 'kwargs': {'projectors': {_slot(student): projector}}},
        'forward_hook': {'input': [], 'output': hooked},
    }


def _trg_term(teacher: Model, student: Model) -> dict[str, Any]:
    paths = {
        'student_module_path': f'student_model.{student.layer}',
        'student_module_io': 'output',
        'teacher_module_path': teacher.layer,
        'teacher_module_io': 'output',
    }
    sides = {'student_tokens': student.tokens, 'teacher_tokens': teacher.tokens}
    tokens = {name: options for name, options in sides.items() if options}
    trg = {
        **paths,
        'projection_module_path': f'projectors.{_slot(student)}',
        'projection_module_io': 'output',
        'num_neighbors': 8,
        'sigma': 0.5,
        'edges': 'own',
        'row_distribution': 'softmax_all',
        'global_targets': 'self',
        'tokens_per_image': 8,
        'temperature': {'start': 0.5, 'end': 0.1, 'schedule': 'cosine'},
        'local_weight': 1.0,
        'global_weight': 0.3,
        **tokens,
    }
    return {'criterion': {'key': 'TRGLoss', 'kwargs': trg}, 'weight': 1.0}


def _file(
    head: str,
    recipe: Recipe,
    models: dict[str, Any],
    sides: dict[str, Any],
    terms: dict[str, Any],
    trained: Model,
    has_trg: bool = False,
) -> str:
    key, kwargs = recipe.optimizer
    optimizer = {'key': key, 'kwargs': {**kwargs, **({'lr': recipe.slow_lr} if trained.is_slow else {})}}
    train: dict[str, Any] = {
        'log_freq': 100,
        'num_epochs': f'&num_epochs {recipe.num_epochs}',
        'train_data_loader': _loader('*train', 'RandomSampler', recipe.batch_size, drop_last=True),
        'val_data_loader': _loader(recipe.validation, 'SequentialSampler', 2 * recipe.batch_size, drop_last=False),
    }
    if 'teacher' in sides:
        train['pre_epoch_process'] = 'pre_epoch_process_with_trg'
    if has_trg:
        train['post_epoch_process'] = 'post_epoch_process_with_trg'
    train |= sides
    train['optimizer'] = optimizer
    train['scheduler'] = {'key': recipe.scheduler[0], 'kwargs': recipe.scheduler[1]}
    train['criterion'] = {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': terms}}
    test = {'test_data_loader': _loader('*test', 'SequentialSampler', 2 * recipe.batch_size, drop_last=False)}
    chosen = 'test images, as in the literature' if recipe.validation == '*test' else 'validation images'
    return '\n'.join(
        [
            f'# {head}',
            f'# The best epoch is chosen on the {chosen}. Not trained to its end by us yet.',
            '# Written by `python -m configs.generator`.',
            "dependencies:\n  - name: 'trg_torchdistill'\n",
            f'{recipe.datasets}\n',
            f'models:\n{indent(block(models), "  ")}\n',
            f'train:\n{indent(block(train), "  ")}\n',
            f'test:\n{indent(block(test), "  ")}\n',
        ]
    )


def _loader(dataset: str, sampler: str, batch_size: int, drop_last: bool) -> dict[str, Any]:
    return {
        'dataset_id': dataset,
        'sampler': {'class_or_func': f"!import_get\n  key: 'torch.utils.data.{sampler}'", 'kwargs': {}},
        'kwargs': {'batch_size': batch_size, 'num_workers': 8, 'pin_memory': True, 'drop_last': drop_last},
    }


if __name__ == '__main__':
    main()
