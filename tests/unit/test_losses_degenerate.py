"""Registered losses at the ends of what they take: clipped neighbours, one token an image, extreme numbers, layouts."""

import pytest
import torch
from helpers import assert_all_finite, gradient_of

from trg_torchdistill import TokenContextualLoss, TRGLoss

PATHS = ('layer4', 'output', 'layer4', 'output')


def value_and_gradient(loss, student, teacher):
    student = student.detach().requires_grad_()
    value = loss({'layer4': {'output': student}}, {'layer4': {'output': teacher}})
    return value.detach(), gradient_of(value, student)


LAYOUTS = {
    'not contiguous': lambda feature: feature.permute(0, 1, 3, 2)[:, :, ::2, 1:],
    'channels last': lambda feature: feature.to(memory_format=torch.channels_last),
    'expanded': lambda feature: feature[:1, :, :1, :1].expand(2, 3, 4, 4),
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('cls', [TRGLoss, TokenContextualLoss])
def test_the_layout_of_a_feature_in_memory_does_not_matter(cls, layout):
    loss = cls(*PATHS, **({'tokens_per_image': None, 'num_neighbors': 3} if cls is TRGLoss else {}))
    features = [LAYOUTS[layout](torch.randn(2, 3, 4, 4)) for _ in range(2)]
    assert torch.equal(loss_of(loss, *features), loss_of(loss, *(feature.contiguous() for feature in features)))
    assert_all_finite(*value_and_gradient(loss, *features))


def loss_of(loss, student, teacher):
    return loss({'layer4': {'output': student}}, {'layer4': {'output': teacher}})


@pytest.mark.filterwarnings('ignore:expected `num_neighbors`')
def test_more_neighbours_than_tokens_is_all_other_tokens():
    features = [{'layer4': {'output': torch.randn(1, 3, 2, 2)}} for _ in range(2)]
    many, all_others = (TRGLoss(*PATHS, num_neighbors=k, global_weight=0)(*features) for k in (100, 3))
    assert many == all_others


def test_one_token_an_image_is_said_once_by_the_contextual_loss():
    loss = TokenContextualLoss(*PATHS)
    message = (
        'expected `TokenContextualLoss` to get more than one token an image, got 1: the term is 0; change '
        '`student_module_path:` and `teacher_module_path:` to a layer before pooling'
    )
    with pytest.warns(UserWarning, match='the term is 0') as caught:
        values = [value_and_gradient(loss, torch.randn(2, 3), torch.randn(2, 5)) for _ in range(2)]
    assert [str(warning.message) for warning in caught] == [message]
    for value, gradient in values:
        assert value == 0
        assert torch.equal(gradient, torch.zeros(2, 3))


@pytest.mark.parametrize('number', [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize('name', ['sigma', 'temperature'])
def test_the_smallest_and_the_largest_numbers_give_finite_losses_and_gradients(name, number):
    loss = TRGLoss(*PATHS, tokens_per_image=None, **{name: number})
    assert_all_finite(*value_and_gradient(loss, torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)))


@pytest.mark.parametrize('number', [1e-31, 1e-300, 1e31, 1e300, 10**400])
@pytest.mark.parametrize('name', ['sigma', 'temperature'])
def test_numbers_that_float32_cannot_use_are_refused(name, number):
    with pytest.raises(ValueError, match=rf'expected `{name}` to be a number > 0.*got .*change it under the `kwargs:`'):
        TRGLoss(*PATHS, **{name: number})
