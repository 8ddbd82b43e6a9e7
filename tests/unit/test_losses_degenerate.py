"""The losses on degenerate batches: finite losses and gradients; what comes in broken goes out broken."""

import pytest
import torch
from helpers import assert_all_finite, assert_close, assert_not_finite

from trg_torchdistill import TokenContextualLoss, TRGLoss

PATHS = ('layer4', 'output', 'layer4', 'output')
LOSSES = {
    'TRG': lambda: TRGLoss(*PATHS, tokens_per_image=None),
    'TRG, neighbours only': lambda: TRGLoss(*PATHS, tokens_per_image=None, affinity_support='neighbors'),
    'TRG, literal': lambda: TRGLoss(*PATHS, tokens_per_image=None, normalize_tokens=False, global_reduction='sum'),
    'TRG, student first': lambda: TRGLoss(*PATHS, tokens_per_image=None, kl_direction='student_teacher'),
    'contextual': lambda: TokenContextualLoss(*PATHS),
    'contextual, normalised': lambda: TokenContextualLoss(*PATHS, normalize_tokens=True, reduction='batchmean'),
}


def random_map():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def half_zero():
    feature = random_map()
    feature[:, :, :2] = 0
    return feature


FEATURES = {
    'constant': lambda: torch.full((2, 3, 4, 4), 2.0),
    'zero': lambda: torch.zeros(2, 3, 4, 4),
    'half of the tokens zero': half_zero,
    'duplicates': lambda: random_map()[:1].repeat(2, 1, 1, 1)[:, :, :1].repeat(1, 1, 4, 1),
    'opposite signs': lambda: -random_map(),
    'one image': lambda: random_map()[:1],
    'one token': lambda: random_map()[:1, :, :1, :1],
    'one token an image': lambda: random_map()[:, :, :1, :1],
    'one channel': lambda: random_map()[:, :1],
    'large': lambda: random_map() * 1e18,
    'tiny': lambda: random_map() * 1e-30,
    'not contiguous': lambda: random_map().permute(0, 1, 3, 2)[:, :, ::2, 1:],
    'channels last': lambda: random_map().to(memory_format=torch.channels_last),
    'expanded': lambda: torch.randn(1, 3, 1, 1).expand(2, 3, 4, 4),
}


def value_and_gradient(loss, student, teacher):
    student = student.detach().requires_grad_()
    teacher = teacher.detach().requires_grad_()
    value = loss({'layer4': {'output': student}}, {'layer4': {'output': teacher}})
    value.backward()
    assert teacher.grad is None
    assert student.grad.shape == student.shape
    return value.detach(), student.grad


@pytest.mark.filterwarnings('ignore:expected `num_neighbors`', 'ignore:expected `TokenContextualLoss`')
@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('feature', FEATURES.values(), ids=FEATURES)
def test_degenerate_features_give_finite_losses_and_gradients(feature, loss):
    ordinary = torch.randn_like(feature())
    for student, teacher in ((feature(), ordinary), (ordinary, feature()), (feature(), feature())):
        assert_all_finite(*value_and_gradient(loss(), student, teacher))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_half_precision_features(loss, dtype):
    """Compared with float64 on the same rounded features; the loss is float32, the gradient of the features' dtype."""
    student, teacher = torch.randn(2, 3, 4, 4).to(dtype), torch.randn(2, 3, 4, 4).to(dtype)
    value, gradient = value_and_gradient(loss(), student, teacher)
    expected, expected_gradient = value_and_gradient(loss(), student.double(), teacher.double())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(value, expected, rtol=1e-4)
    largest = float(expected_gradient.abs().max())
    assert_close(gradient, expected_gradient, rtol=0, atol=4 * torch.finfo(dtype).eps * largest)


@pytest.mark.parametrize('scale', [1e4, 1e-3])
@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_half_precision_features_out_of_the_range_of_their_squares(loss, scale):
    student, teacher = (torch.randn(2, 2, 3, 4, 4) * scale).clamp(-6e4, 6e4).half()
    assert_all_finite(*value_and_gradient(loss(), student, teacher))


@pytest.mark.parametrize('broken', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('side', [0, 1], ids=['student', 'teacher'])
@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_nan_or_inf_coming_in_is_not_hidden(loss, side, broken):
    features = [torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)]
    features[side][1, 2, 3, 3] = broken
    assert_not_finite(loss()(*({'layer4': {'output': feature}} for feature in features)))


@pytest.mark.filterwarnings('ignore:expected `num_neighbors`')
def test_one_token_gives_a_zero_that_backpropagates():
    value, gradient = value_and_gradient(LOSSES['TRG'](), torch.randn(1, 3, 1, 1), torch.randn(1, 3, 1, 1))
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert_close(gradient, torch.zeros(1, 3, 1, 1, dtype=torch.float64), atol=1e-6)


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
