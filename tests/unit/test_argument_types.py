"""What an annotation allows is taken: any mapping, any sequence, the numbers of numpy and tensors of no dimension."""

from collections import UserList
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from trg_torchdistill import (
    TemperatureSchedule,
    TokenContextualLoss,
    Tokenizer,
    TRGLoss,
    contextual_loss,
    global_relationship_loss,
    local_preserving_loss,
)
from trg_torchdistill.wrappers import Student4TRG

PATHS = {
    'student_module_path': 'map',
    'student_module_io': 'output',
    'teacher_module_path': 'map',
    'teacher_module_io': 'output',
}
INTEGERS = [np.int64(3), np.uint8(3), torch.tensor(3)]
NUMBERS = [np.float32(0.5), np.float16(0.5), np.float64(0.5), Fraction(1, 2), torch.tensor(0.5)]
NO_NUMBERS = [True, np.bool_(True), torch.tensor(True), torch.ones(1), torch.tensor(0.5, requires_grad=True), '0.5', 1j]
FEATURES = {'map': {'output': torch.randn(2, 4, 3, 3)}}, {'map': {'output': torch.randn(2, 4, 3, 3)}}


@pytest.mark.parametrize('three', INTEGERS, ids=repr)
@pytest.mark.parametrize('half', NUMBERS, ids=repr)
def test_numbers_of_any_kind_are_those_of_python(half, three):
    tokens, teacher = torch.randn(2, 8, 4)
    assert torch.equal(local_preserving_loss(tokens, teacher, three, half), local_preserving_loss(tokens, teacher, 3))
    assert torch.equal(
        global_relationship_loss(tokens, teacher, half), global_relationship_loss(tokens, teacher, temperature=0.5)
    )
    images, teacher, options = tokens[None], teacher[None], {'normalize_tokens': True}
    assert torch.equal(
        contextual_loss(images, teacher, temperature=half, **options),
        contextual_loss(images, teacher, temperature=0.5, **options),
    )
    loss = TRGLoss(
        **PATHS, num_neighbors=three, sigma=half, tokens_per_image=three, max_tokens=three, local_weight=half
    )
    assert (loss.local.num_neighbors, loss.local.sigma, loss.tokens_per_image, loss.max_tokens) == (3, 0.5, 3, 3)
    assert {type(loss.local.num_neighbors), type(loss.max_tokens)} == {int}
    assert {type(loss.local.sigma), type(loss.now('local_weight'))} == {float}
    assert type(TokenContextualLoss(**PATHS, temperature=half).term.temperature) is float
    assert type(TemperatureSchedule(half, half).at(three, three)) is float
    assert Tokenizer(patch_size=three)(torch.randn(1, 2, 6, 6)).shape == (1, 18, 2, 2)


@pytest.mark.parametrize('value', NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_by_name(value):
    tokens = torch.randn(8, 4)
    with pytest.raises(TypeError, match='expected `sigma` to be a number > 0, got'):
        local_preserving_loss(tokens, tokens, 3, value)
    with pytest.raises(TypeError, match='expected `num_neighbors` to be an integer >= 1, got'):
        local_preserving_loss(tokens, tokens, value)
    with pytest.raises(TypeError, match='expected `temperature` to be a number > 0 or'):
        TRGLoss(**PATHS, temperature=value)


@pytest.mark.parametrize('value', [np.float32('inf'), np.float64('nan'), torch.tensor(torch.inf), 10**400], ids=repr)
def test_a_number_that_is_not_finite_is_refused_in_every_type(value):
    with pytest.raises(ValueError, match=r'expected `sigma` to be a number > 0, got (inf|nan)'):
        local_preserving_loss(torch.randn(8, 4), torch.randn(8, 4), 3, value)


def test_any_mapping_is_a_mapping():
    options = {'student_tokens': {'patch_size': 1}, 'temperature': {'start': 0.5, 'end': 0.1}}
    loss = TRGLoss(**PATHS, **{name: MappingProxyType(value) for name, value in options.items()})
    loss.start_epoch(0, 10)
    assert loss.current_temperature == 0.5
    assert bool(loss(*map(MappingProxyType, FEATURES)).isfinite())
    block = {'path': 'student_model.conv', 'io': 'output', 'in_features': np.int64(4), 'out_features': 6}
    block['tokens'] = MappingProxyType({'patch_size': 1})
    student = nn.Sequential()
    student.conv = nn.Conv2d(3, 4, 1)
    projectors = MappingProxyType({'map': MappingProxyType(block)})
    wrapped = Student4TRG(torch.device('cpu'), None, False, projectors, student_model=student)
    assert wrapped.projectors['map'].linear.weight.shape == (6, 4)


@pytest.mark.parametrize('grid_size', [(2, 3), UserList([2, 3]), [np.int64(2), 3]])
def test_any_sequence_of_two_is_a_grid_size(grid_size):
    assert Tokenizer(grid_size=grid_size)(torch.randn(1, 6, 4)).shape == (1, 4, 2, 3)


@pytest.mark.parametrize('grid_size', ['23', {2: 3, 3: 2}, [2], 6])
def test_what_is_no_sequence_of_two_is_no_grid_size(grid_size):
    with pytest.raises(ValueError, match='expected `grid_size` to be'):
        Tokenizer(grid_size=grid_size)
