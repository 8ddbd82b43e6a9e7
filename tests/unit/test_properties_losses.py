"""Whatever comes in: a finite scalar with finite gradients, or one of our own errors.

`pytest tests/unit/test_properties_losses.py --hypothesis-profile many` looks at thousands of cases.
"""

import contextlib
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from helpers import assert_all_finite
from hypothesis import given
from hypothesis import strategies as st

import trg_torchdistill
from trg_torchdistill import TokenContextualLoss, TRGLoss
from trg_torchdistill.tokens import Tokenizer
from trg_torchdistill.wrappers import Student4TRG, TokenProjector

PACKAGE = Path(trg_torchdistill.__file__).parent
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
JUNK = st.sampled_from(
    [None, True, False, 'x', '', '1e-3', -1, 0, 1.5, float('nan'), float('inf'), 10**400, [], [1], {}, {'x': 1}, b'x']
)


def own_error(error):
    """Our own: every cause was raised in the package, in our form. The text names what was expected and found."""
    while error is not None:
        file = traceback.extract_tb(error.__traceback__)[-1].filename
        if Path(file).parent not in (PACKAGE, PACKAGE / 'losses', PACKAGE / 'wrappers') or 'expected' not in str(error):
            return False
        error = error.__cause__
    return True


@contextlib.contextmanager
def only_our_errors():
    """Lets an error of ours pass as the outcome, and says in `refused` that it did; any other one fails the test."""
    refused = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield refused
        except (TypeError, ValueError) as error:
            refused.append(error)
            if not own_error(error):
                raise AssertionError(f'not an error of ours: {error!r}') from error


sizes = st.integers(0, 5) | st.integers(1, 3)
numbers = st.floats(0.02, 1e3) | st.sampled_from([1e-300, 1e-46, 1e20, 1e30, 1e300])
squares = st.sampled_from([1, 4, 9, 10, 5])
widths = st.sampled_from([4, 4, 4, 6, 1, 0])
SHAPES = {
    'bchw': st.tuples(sizes, widths, sizes, sizes),
    'bhwc': st.tuples(sizes, sizes, sizes, widths),
    'bnd': st.tuples(sizes, squares, widths),
    'bd': st.tuples(sizes, widths),
    'other': st.lists(sizes, max_size=5).map(tuple),
}


@st.composite
def tensors(draw, shape):
    """A tensor in any dtype and memory layout; its values are ordinary, equal, small or large."""
    dtype = draw(st.sampled_from(FLOATS * 4 + OTHERS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    layout = draw(st.sampled_from(['plain', 'plain', 'channels_last', 'transposed', 'strided', 'expanded']))
    wanted = tuple(reversed(shape)) if layout == 'transposed' else shape
    if layout == 'strided' and shape:
        wanted = (*shape[:-1], 2 * shape[-1])
    value = torch.randn(wanted, generator=generator) * draw(st.sampled_from([1.0, 1.0, 0.0, 1e-3, 100.0]))
    value = value.to(dtype)
    if layout == 'transposed':
        value = value.permute(tuple(reversed(range(value.ndim))))
    elif layout == 'strided' and shape:
        value = value[..., ::2]
    elif layout == 'expanded' and shape and shape[0] > 0:
        value = value[:1].expand(shape)
    elif layout == 'channels_last' and value.ndim == 4:
        value = value.to(memory_format=torch.channels_last)
    return value


@st.composite
def feature_pairs(draw):
    """(layout, student, teacher): mostly of the same layout and batch size, as in a real model."""
    layout = draw(st.sampled_from(list(SHAPES)))
    shape = draw(SHAPES[layout])
    other = draw(SHAPES[draw(st.sampled_from([layout] * 5 + list(SHAPES)))])
    if shape and other and draw(st.integers(0, 5)):
        other = (shape[0], *other[1:])
    return layout, draw(tensors(shape)), draw(tensors(other))


def values_in_a_dict(tensor):
    """What a hook may have caught: mostly the tensor, sometimes in a container, sometimes none."""
    return st.sampled_from([tensor] * 9 + [(tensor, None), {'a': tensor}, [[tensor]], None, (), 'text'])


def keywords(valid):
    """Some of the keywords, mostly with valid values, at times one with junk."""
    plain = st.fixed_dictionaries({}, optional=valid)
    spoilt = st.dictionaries(st.sampled_from([*valid, 'unknown']), JUNK, max_size=2)
    return st.builds(lambda first, second: first | second, plain, st.just({}) | st.just({}) | spoilt)


TOKENS = keywords(
    {
        'layout': st.sampled_from(['auto', 'bchw', 'bhwc', 'bnd', 'bd']),
        'patch_size': st.integers(1, 3),
        'num_prefix_tokens': st.integers(0, 2),
        'grid_size': st.sampled_from([None, [2, 2], (1, 4), [5, 2], [0, 1]]),
    }
)
TOKENS = st.none() | st.just({}) | TOKENS
TRG = keywords(
    {
        'num_neighbors': st.integers(1, 9),
        'sigma': numbers,
        'tokens_per_image': st.none() | st.integers(1, 30),
        'max_tokens': st.none() | st.integers(1, 50),
        'temperature': numbers | st.fixed_dictionaries({'start': numbers, 'end': numbers}),
        'local_weight': st.sampled_from([0, 1.0, 2, 1e-300, 1e300]),
        'global_weight': st.sampled_from([0, 1.0, 2, 1e-300, 1e300]),
        'kl_direction': st.sampled_from(['teacher_student', 'student_teacher']),
        'row_distribution': st.sampled_from(['softmax_all', 'softmax_edges']),
        'normalize_tokens': st.booleans(),
        'local_reduction': st.sampled_from(['sum', 'mean']),
        'global_reduction': st.sampled_from(['sum', 'mean']),
        'projection_module_path': st.sampled_from([None, None, 'projectors.p']),
        'projection_module_io': st.sampled_from(['output', 'input']),
        'student_tokens': TOKENS,
        'teacher_tokens': TOKENS,
    }
)
CONTEXT = keywords(
    {
        'reduction': st.sampled_from(['mean', 'batchmean']),
        'normalize_tokens': st.booleans(),
        'temperature': numbers,
        'student_tokens': TOKENS,
        'teacher_tokens': TOKENS,
    }
)


@pytest.mark.parametrize('cls', [TRGLoss, TokenContextualLoss])
@given(data=st.data())
def test_any_features_and_keywords(cls, data):
    layout, student, teacher = data.draw(feature_pairs())
    kwargs = data.draw(TRG if cls is TRGLoss else CONTEXT)
    if layout in ('bhwc', 'bnd') and data.draw(st.booleans()):
        kwargs |= {'student_tokens': {'layout': layout}, 'teacher_tokens': {'layout': layout}}
    projection = data.draw(tensors(data.draw(SHAPES['bnd'] | SHAPES['other'])))
    for tensor in (student, projection):
        if tensor.is_floating_point():
            tensor.requires_grad_()
    io_dicts = (
        {'a': {'output': data.draw(values_in_a_dict(student))}, 'projectors.p': {'output': projection}},
        {'b': {'output': data.draw(values_in_a_dict(teacher))}},
    )
    with only_our_errors() as refused:
        loss = cls(student_module_path='a', student_module_io='output', teacher_module_path='b', **TEACHER_IO, **kwargs)
        if data.draw(st.booleans()):
            loss.start_epoch(data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3)))
        value = loss(*io_dicts)
    if refused:
        return
    assert value.shape == ()
    assert_all_finite(value)
    value.backward()
    assert student.grad is not None or projection.grad is not None
    assert_all_finite(*(tensor.grad for tensor in (student, projection) if tensor.grad is not None))


TEACHER_IO = {'teacher_module_io': 'output'}
PATHS = st.sampled_from(['a', 'a', 'a', 'a.b', '', None, 1])
IO = st.sampled_from(['output', 'output', 'input', 'x', None])


@pytest.mark.parametrize('cls', [TRGLoss, TokenContextualLoss])
@given(data=st.data())
def test_any_paths(cls, data):
    student, teacher = torch.randn(2, 4, 2, 2, requires_grad=True), torch.randn(2, 4, 2, 2)
    with only_our_errors() as refused:
        names = ['student_module_path', 'student_module_io', 'teacher_module_path', 'teacher_module_io']
        paths = dict(zip(names, data.draw(st.tuples(PATHS, IO, PATHS, IO)), strict=True))
        loss = cls(**{name: value for name, value in paths.items() if data.draw(st.integers(0, 9))})
        value = loss({'a': {'output': student}, 'a.b': {}}, {'a': {'output': teacher}})
    if not refused:
        assert_all_finite(value)


@given(data=st.data())
def test_any_projectors(data):
    options = keywords(
        {
            'path': st.sampled_from(['student_model.0', 'student_model', 'layer']),
            'io': st.sampled_from(['output', 'input']),
            'in_features': st.integers(1, 5),
            'out_features': st.integers(1, 5),
            'tokens': TOKENS,
        }
    )
    kwargs = data.draw(options)
    feature = data.draw(tensors(data.draw(st.one_of(*SHAPES.values()))))
    with only_our_errors():
        student = torch.nn.Sequential(torch.nn.Linear(2, 2))
        names = st.sampled_from(['p', 'p', 'p', 'a.b', 'type', '', 3])
        projectors = data.draw(JUNK | st.just({data.draw(names): kwargs}))
        Student4TRG(
            torch.device('cpu'), None, False, projectors, student, **data.draw(keywords({'projector_ckpt': st.none()}))
        )
    with only_our_errors() as refused:
        defaults = {'path': 'student_model.0', 'io': 'output', 'in_features': 4, 'out_features': 2}
        projected = TokenProjector(**defaults | {name: kwargs[name] for name in kwargs if name != 'unknown'})(feature)
    if not refused:
        assert_all_finite(projected)


@given(TOKENS, st.one_of(*SHAPES.values()).flatmap(tensors))
def test_any_token_options(options, feature):
    with only_our_errors() as refused:
        grid = Tokenizer(**{name: value for name, value in (options or {}).items() if name != 'unknown'})(feature)
    if not refused:
        assert grid.ndim == 4
        assert grid.numel() == feature.numel() or (options or {}).get('num_prefix_tokens')
