"""The `train:` blocks of the methods that ``step.py`` compares, as the host's sample configurations have them.

Every method is the same ``KDLoss`` plus its own terms, so that its cost is what it adds to plain KD. Sources:
``configs/sample/ilsvrc2012/<method>/*.yaml`` of torchdistill, with the layers, widths and sizes of the pair.
``RKD (pooled)`` relates one vector an image, as the paper of RKD does; the sample flattens whole maps, at more cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _pairs import Pair

Config = dict[str, Any]
CRD_NEGATIVES, CRD_FEATURES = 16384, 128


def paths(student: str, teacher: str, io: str = 'output', teacher_io: str | None = None) -> Config:
    """The four keywords of a loss of two features."""
    return {
        'student_module_path': student,
        'student_module_io': io,
        'teacher_module_path': teacher,
        'teacher_module_io': teacher_io or io,
    }


def term(key: str, weight: float = 1.0, **kwargs: Any) -> Config:
    """One of the `sub_terms:`."""
    return {'criterion': {'key': key, 'kwargs': kwargs}, 'weight': weight}


def side(output: Sequence[str] = (), inputs: Sequence[str] = (), **more: Any) -> Config:
    """A `teacher:` or `student:` block."""
    return {
        'forward_proc': 'forward_batch_only',
        'forward_hook': {'input': list(inputs), 'output': list(output)},
        'wrapper': None,
        'requires_grad': True,
        **more,
    }


def wrapped(key: str, **kwargs: Any) -> Config:
    """An `auxiliary_model_wrapper:` line of a side."""
    return {'auxiliary_model_wrapper': {'key': key, 'kwargs': kwargs}}


def feature_pairs(students: Sequence[str], teachers: Sequence[str]) -> Config:
    """Pairs of outputs, as ATLoss, VIDLoss and ChSimLoss take them."""
    return {
        f'pair{index}': {
            'teacher': {'io': 'output', 'path': teacher},
            'student': {'io': 'output', 'path': student},
            'weight': 1,
        }
        for index, (student, teacher) in enumerate(zip(students, teachers, strict=True))
    }


def projected(pair: Pair) -> tuple[Config, Config]:
    """The `student:` block with a learned projection of its last stage, and ``TRGLoss``'s keyword that names it."""
    path = f'student_model.{pair.student.layers[-1]}'
    widths = {'in_features': pair.student.widths[-1], 'out_features': pair.teacher.widths[-1]}
    projectors = {'last': {'path': path, 'io': 'output', **widths}}
    student = side([path, 'projectors.last'], **wrapped('Student4TRG', projectors=projectors))
    return student, {'projection_module_path': 'projectors.last'}


def trg_methods(pair: Pair) -> dict[str, tuple[Config, Config, Config]]:
    """Ours: TRG with its defaults, with the contextual term, and that with a learned projection."""
    student, teacher = pair.student.layers[-1], pair.teacher.layers[-1]
    both, inner = paths(student, teacher), f'student_model.{student}'
    student_side, kwargs = projected(pair)
    return {
        'TRG': (side([teacher]), side([student]), {'trg': term('TRGLoss', **both)}),
        'TRG + contextual': (
            side([teacher]),
            side([student]),
            {'trg': term('TRGLoss', **both), 'inner': term('TokenContextualLoss', **both)},
        ),
        'TRG + contextual + projector': (
            side([teacher]),
            student_side,
            {
                'trg': term('TRGLoss', **paths(inner, teacher), **kwargs),
                'inner': term('TokenContextualLoss', **paths(inner, teacher)),
            },
        ),
    }


def output_methods(pair: Pair) -> dict[str, tuple[Config, Config, Config]]:
    """Of torchdistill, those that learn nothing beside the student."""
    student, teacher = pair.student.layers[-1], pair.teacher.layers[-1]
    last = (side([teacher]), side([student]))
    outputs = {'teacher_output_path': teacher, 'student_output_path': student}
    pooled = {'teacher_output_path': pair.teacher.pool, 'student_output_path': pair.student.pool}
    rkd = {'dist_factor': 1.0, 'angle_factor': 2.0, 'reduction': 'mean'}
    attention = pair.attention or tuple(zip(pair.student.layers, pair.teacher.layers, strict=True))[-2:]
    students, teachers = zip(*attention, strict=True)
    at_pairs = feature_pairs(students, teachers)
    return {
        'DIST': (side(), side(), {'dist': term('DISTLoss', 2.0, **paths('.', '.'), beta=1.0, gamma=1.0, tau=1.0)}),
        'PKT': (
            side(inputs=['fc']),
            side(inputs=['fc']),
            {'pkt': term('PKTLoss', 30000.0, **paths('fc', 'fc', 'input'), eps=1e-7)},
        ),
        'SPKD': (*last, {'spkd': term('SPKDLoss', **outputs, reduction='batchmean')}),
        'RKD': (*last, {'rkd': term('RKDLoss', **outputs, **rkd)}),
        'RKD (pooled)': (
            side([pair.teacher.pool]),
            side([pair.student.pool]),
            {'rkd': term('RKDLoss', **pooled, **rkd)},
        ),
        'AT': (side(teachers), side(students), {'at': term('ATLoss', 1000.0, at_pairs=at_pairs, mode='code')}),
    }


def learned_methods(pair: Pair, image_size: int, crd_rows: int) -> dict[str, tuple[Config, Config, Config]]:
    """Of torchdistill, those with layers of their own."""
    layers, widths, width = pair.student.layers, pair.student.widths, pair.student.widths[-1]
    teacher_layers, teacher_widths = pair.teacher.layers, pair.teacher.widths
    inner = [f'student_model.{layer}' for layer in layers]
    regressors = {
        f'regressor{index}': {
            'io': 'output',
            'path': path,
            'kwargs': {
                'in_channels': count,
                'middle_channels': teacher_count,
                'out_channels': teacher_count,
                'eps': 1e-5,
                'init_pred_var': 5.0,
            },
        }
        for index, (path, count, teacher_count) in enumerate(zip(inner, widths, teacher_widths, strict=True))
    }
    regressed = [f'regressor_dict.{name}' for name in regressors]
    embed_widths = {'in_channels': width, 'out_channels': teacher_widths[-1]}
    embeddings = {'last': {'path': inner[-1], 'io': 'output', **embed_widths}}
    norm = {'norm_kwargs': {'num_features': teacher_widths[-1], 'eps': 1e-4, 'affine': False}}
    srd_hooks = [[f'model.{path}', 'norm_layer'] for path in (teacher_layers[-1], pair.student.map or layers[-1])]
    srd_inputs = [{'input_module': {'path': hooks[0], 'io': 'output'}} for hooks in srd_hooks]
    linear = {'in_features': width, 'out_features': teacher_widths[-1]}
    embed = {'input_module_path': 'model.avgpool', 'power': 2}
    embed_teacher, embed_student = (
        {**embed, 'linear_kwargs': {'in_features': count, 'out_features': CRD_FEATURES, 'bias': True}}
        for count in (teacher_widths[-1], width)
    )
    crd_hook, supp = ['model.avgpool', 'normalizer'], {'forward_proc': 'forward_batch_supp_dict'}
    crd_paths = {f'{name}_norm_module_path': 'normalizer' for name in ('student', 'teacher')}
    crd = {'input_size': CRD_FEATURES, 'output_size': crd_rows, 'num_samples': crd_rows, 'temperature': 0.07}
    relus = [f'{layer}.-1.relu' for layer in layers]
    fusions = [
        {'path': path, 'io': io, 'kwargs': {'in_channels': c, 'mid_channels': pair.review_width, 'out_channels': c}}
        for path, io, c in [
            *((f'student_model.{relu}', 'input', count) for relu, count in zip(relus, widths, strict=True)),
            ('student_model.avgpool', 'output', width),
        ]
    ]
    sizes = [1, *(max(1, image_size // stride) for stride in reversed(pair.strides))]
    abfs = [f'abf_modules.{index}' for index in range(len(fusions))]
    reviewed = [*zip(reversed(abfs), relus, ['input'] * len(relus), strict=False), (abfs[0], 'avgpool', 'output')]
    hcl = {'reduction': 'mean', 'output_sizes': [4, 2, 1]}
    return {
        'VID': (
            side(teacher_layers),
            side([*inner, *regressed], **wrapped('VariationalDistributor4VID', regressors=regressors)),
            {'vid': term('VIDLoss', feature_pairs=feature_pairs(regressed, teacher_layers), margin=1.0)},
        ),
        'ICKD': (
            side(teacher_layers[-1:]),
            side([inner[-1], 'embed_dict.last'], **wrapped('Student4ICKD', embeddings=embeddings)),
            {'cs': term('ChSimLoss', 500.0, feature_pairs=feature_pairs(['embed_dict.last'], teacher_layers[-1:]))},
        ),
        'SRD': (
            side(srd_hooks[0], **wrapped('SRDModelWrapper', **srd_inputs[0], **norm)),
            side(srd_hooks[1], **wrapped('SRDModelWrapper', **srd_inputs[1], **norm, linear_kwargs=linear)),
            {
                'srd': term(
                    'SRDLoss',
                    **{
                        f'{name}_{what}_module_{part}': value
                        for name in ('student', 'teacher')
                        for what, path in (('feature', 'norm_layer'), ('linear', '.'))
                        for part, value in (('path', path), ('io', 'output'))
                    },
                    exponent=4.0,
                    temperature=1.0,
                    reduction='batchmean',
                )
            },
        ),
        'CRD': (
            side(crd_hook, **supp, **wrapped('Linear4CRD', **embed_teacher), frozen_modules=['model']),
            side(crd_hook, ['empty'], **supp, **wrapped('Linear4CRD', **embed_student)),
            {
                'crd': term(
                    'CRDLoss',
                    0.8,
                    **crd_paths,
                    **crd,
                    student_empty_module_path='empty',
                    num_negative_samples=CRD_NEGATIVES,
                    momentum=0.5,
                    eps=1e-7,
                )
            },
        ),
        'KR (ReviewKD)': (
            side(['avgpool'], relus),
            side(
                ['student_model.avgpool', *abfs],
                [f'student_model.{relu}' for relu in relus],
                **wrapped('Student4KnowledgeReview', abfs=fusions, sizes=sizes),
            ),
            {
                teacher: term('HierarchicalContextLoss', **paths(abf, teacher, 'output', io), **hcl)
                for abf, teacher, io in reviewed
            },
        ),
    }


def make_methods(pair: Pair, image_size: int, crd_rows: int) -> dict[str, Config]:
    """The whole `train:` block of each method by its name; plain KD comes first."""
    plain: dict[str, tuple[Config, Config, Config]] = {'plain KD': (side(), side(), {})}
    methods = {**plain, **trg_methods(pair), **output_methods(pair), **learned_methods(pair, image_size, crd_rows)}
    return {name: _train_block(*parts) for name, parts in methods.items()}


def _train_block(teacher: Config, student: Config, terms: Config) -> Config:
    kd = term('KDLoss', **paths('.', '.'), temperature=4.0, alpha=0.5, reduction='batchmean')
    # As in the sample configurations, only CRD's teacher has something to learn.
    frozen = {} if 'frozen_modules' in teacher else {'requires_grad': False}
    return {
        'num_epochs': 1,
        'pre_epoch_process': 'pre_epoch_process_with_trg',
        'teacher': {**teacher, **frozen},
        'student': student,
        'optimizer': {'key': 'SGD', 'kwargs': {'lr': 1e-4, 'momentum': 0.9, 'weight_decay': 1e-4}},
        'criterion': {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': {'kd': kd, **terms}}},
    }
