"""The `train:` blocks of the methods that ``step.py`` compares, as the host's sample configurations have them.

Every method is the same ``KDLoss`` plus its own terms, so that its cost is what it adds to plain KD. Sources:
``configs/sample/ilsvrc2012/<method>/*.yaml`` of torchdistill, with the layers, widths and sizes of the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]
CRD_NEGATIVES, CRD_FEATURES = 16384, 128


@dataclass(frozen=True)
class Pair:
    """A teacher and a student whose stages have equal widths.

    Args:
        teacher: Key of the teacher.
        student: Key of the student.
        classes: Number of classes.
        widths: Channels of `layer1`, `layer2`, ...
        strides: By how much each of these stages is smaller than the image.
        review_width: ``mid_channels`` of ReviewKD.
        sizes: Side of the images and batch size, by kind of device.
    """

    teacher: str
    student: str
    classes: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    review_width: int
    sizes: dict[str, tuple[int, int]]

    @property
    def layers(self) -> list[str]:
        """Paths of the stages."""
        return [f'layer{index}' for index in range(1, len(self.widths) + 1)]


PAIRS = {
    'imagenet': Pair(
        'resnet34',
        'resnet18',
        1000,
        (64, 128, 256, 512),
        (4, 8, 16, 32),
        512,
        {'cpu': (64, 64), 'cuda': (224, 256)},
    ),
    'cifar': Pair('resnet56', 'resnet20', 100, (16, 32, 64), (1, 2, 4), 64, {'cpu': (32, 128), 'cuda': (32, 128)}),
}


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


def side(output: list[str] | None = None, inputs: list[str] | None = None, **more: Any) -> Config:
    """A `teacher:` or `student:` block."""
    return {
        'forward_proc': 'forward_batch_only',
        'forward_hook': {'input': inputs or [], 'output': output or []},
        'wrapper': None,
        'requires_grad': True,
        **more,
    }


def wrapped(key: str, **kwargs: Any) -> Config:
    """An `auxiliary_model_wrapper:` line of a side."""
    return {'auxiliary_model_wrapper': {'key': key, 'kwargs': kwargs}}


def feature_pairs(students: list[str], teachers: list[str]) -> Config:
    """Pairs of outputs, as ATLoss, VIDLoss and ChSimLoss take them."""
    return {
        f'pair{index}': {
            'teacher': {'io': 'output', 'path': teacher},
            'student': {'io': 'output', 'path': student},
            'weight': 1,
        }
        for index, (student, teacher) in enumerate(zip(students, teachers, strict=True))
    }


def trg_methods(pair: Pair) -> dict[str, tuple[Config, Config, Config]]:
    """Ours: TRG with its defaults, with the contextual term, and that with a learned projection."""
    last, width = pair.layers[-1], pair.widths[-1]
    inner, projector = f'student_model.{last}', {'path': f'student_model.{last}', 'io': 'output'}
    projectors = {'last': {**projector, 'in_features': width, 'out_features': width}}
    return {
        'TRG': (side([last]), side([last]), {'trg': term('TRGLoss', **paths(last, last))}),
        'TRG + contextual': (
            side([last]),
            side([last]),
            {'trg': term('TRGLoss', **paths(last, last)), 'inner': term('TokenContextualLoss', **paths(last, last))},
        ),
        'TRG + contextual + projector': (
            side([last]),
            side([inner, 'projectors.last'], **wrapped('Student4TRG', projectors=projectors)),
            {
                'trg': term('TRGLoss', **paths(inner, last), projection_module_path='projectors.last'),
                'inner': term('TokenContextualLoss', **paths(inner, last)),
            },
        ),
    }


def output_methods(pair: Pair) -> dict[str, tuple[Config, Config, Config]]:
    """Of torchdistill, those that learn nothing beside the student."""
    layers, last = pair.layers, pair.layers[-1]
    outputs = {'teacher_output_path': last, 'student_output_path': last}
    at_pairs = feature_pairs(layers[-2:], layers[-2:])
    return {
        'DIST': (side(), side(), {'dist': term('DISTLoss', 2.0, **paths('.', '.'), beta=1.0, gamma=1.0, tau=1.0)}),
        'PKT': (
            side(inputs=['fc']),
            side(inputs=['fc']),
            {'pkt': term('PKTLoss', 30000.0, **paths('fc', 'fc', 'input'), eps=1e-7)},
        ),
        'SPKD': (side([last]), side([last]), {'spkd': term('SPKDLoss', **outputs, reduction='batchmean')}),
        'RKD': (
            side([last]),
            side([last]),
            {'rkd': term('RKDLoss', **outputs, dist_factor=1.0, angle_factor=2.0, reduction='mean')},
        ),
        'AT': (side(layers[-2:]), side(layers[-2:]), {'at': term('ATLoss', 1000.0, at_pairs=at_pairs, mode='code')}),
    }


def learned_methods(pair: Pair, image_size: int, crd_rows: int) -> dict[str, tuple[Config, Config, Config]]:
    """Of torchdistill, those with layers of their own."""
    layers, widths, last, width = pair.layers, pair.widths, pair.layers[-1], pair.widths[-1]
    inner = [f'student_model.{layer}' for layer in layers]
    regressors = {
        f'regressor{index}': {
            'io': 'output',
            'path': path,
            'kwargs': {
                'in_channels': count,
                'middle_channels': count,
                'out_channels': count,
                'eps': 1e-5,
                'init_pred_var': 5.0,
            },
        }
        for index, (path, count) in enumerate(zip(inner, widths, strict=True))
    }
    regressed = [f'regressor_dict.{name}' for name in regressors]
    embeddings = {'last': {'path': inner[-1], 'io': 'output', 'in_channels': width, 'out_channels': width}}
    norm = {'input_module': {'path': f'model.{last}', 'io': 'output'}}
    norm['norm_kwargs'] = {'num_features': width, 'eps': 1e-4, 'affine': False}
    linear = {'in_features': width, 'out_features': width}
    embed = {'input_module_path': 'model.avgpool', 'power': 2}
    embed['linear_kwargs'] = {'in_features': width, 'out_features': CRD_FEATURES, 'bias': True}
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
            side(layers),
            side([*inner, *regressed], **wrapped('VariationalDistributor4VID', regressors=regressors)),
            {'vid': term('VIDLoss', feature_pairs=feature_pairs(regressed, layers), margin=1.0)},
        ),
        'ICKD': (
            side([last]),
            side([inner[-1], 'embed_dict.last'], **wrapped('Student4ICKD', embeddings=embeddings)),
            {'cs': term('ChSimLoss', 500.0, feature_pairs=feature_pairs(['embed_dict.last'], [last]))},
        ),
        'SRD': (
            side([f'model.{last}', 'norm_layer'], **wrapped('SRDModelWrapper', **norm)),
            side([f'model.{last}', 'norm_layer'], **wrapped('SRDModelWrapper', **norm, linear_kwargs=linear)),
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
            side(crd_hook, **supp, **wrapped('Linear4CRD', **embed), frozen_modules=['model']),
            side(crd_hook, ['empty'], **supp, **wrapped('Linear4CRD', **embed)),
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
