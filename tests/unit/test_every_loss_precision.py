"""Every loss of the table in half precision, under autocast and compiled.

The losses compute in float32; what remains is the rounding of the features. Two distances that agree in all kept digits
may swap, so a neighbour may change: that is most of the local term's error. The gradients of the contextual term are
small, and in fp16 only those are seen that the scale of the loss, here that of a new GradScaler, lifts above 6e-8.
"""

import pytest
import reference
import torch
from helpers import assert_all_finite, assert_close, gradient_of
from loss_table import EVERY, WAYS

from trg_torchdistill import _blocks

EVERY_WAY = pytest.mark.parametrize('name', WAYS)
SCALE = 2.0**16
IN_ONE_GRAPH = torch.__version__ >= '2.15'
# dtype -> relative error of a loss, of the local term's gradient, of another gradient
TOLERANCES = {torch.bfloat16: (5e-3, 0.12, 0.015), torch.float16: (2e-3, 0.08, 0.02)}


@EVERY_WAY
@pytest.mark.parametrize('student_dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('teacher_dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_lose_nothing_beyond_their_own_rounding(name, student_dtype, teacher_dtype):
    loss = EVERY[name]
    student, teacher = loss.pair()
    student, teacher = student.detach().to(student_dtype).requires_grad_(), teacher.to(teacher_dtype)
    exact = student.detach().double().requires_grad_()
    actual, expected = loss(student, teacher), loss.expected(exact, teacher, eps=reference.EPS_FLOAT32)
    assert actual.dtype == torch.float32
    assert_close(actual, expected, rtol=1e-5)
    gradient, wanted = gradient_of(actual, student), gradient_of(expected, exact)
    assert gradient.dtype == student_dtype
    rtol = max(2 * torch.finfo(student_dtype).eps, 1e-4)
    assert_close(gradient, wanted, rtol=rtol, atol=rtol * float(wanted.abs().max()) + 1e-7)


@EVERY_WAY
@pytest.mark.parametrize('scale', [1e4, 300.0, 1e-3, 2e-4, 1e-6])
def test_half_precision_squares_neither_overflow_nor_underflow(name, scale):
    """300 squared and 1e-6 squared leave the range of fp16; 2e-4 is shorter than the eps of fp16, not of float32."""
    loss = EVERY[name]
    student, teacher = (tokens.detach().clamp(-6e4, 6e4).half() for tokens in loss.pair(scale=scale))
    value = loss(student.requires_grad_(), teacher)
    if scale >= 1e-3:  # of smaller tokens the gradient itself is beyond fp16
        assert_all_finite(gradient_of(value, student))
    has_rounding = 'proportional' in name or 'complete' in name  # rows of almost equal distances
    atol = 1e-6 if has_rounding else 1e-12
    assert_close(value, loss.expected(student, teacher, eps=reference.EPS_FLOAT32), rtol=2e-5, atol=atol)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('width', [64, 512])
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('name', [name for name in WAYS if 'raw' not in name])
def test_half_precision_features_give_the_loss_within_its_tolerance(name, dtype, width, seed):
    torch.manual_seed(seed)
    teacher = 0.3 * (torch.randn(32, 1, width) + torch.randn(32, 16, width))
    student = (teacher + 0.15 * torch.randn_like(teacher)).requires_grad_()
    rounded = student.detach().to(dtype).requires_grad_()
    has_graph = name.startswith(('local', 'TRG'))
    options = {'num_neighbors': 8} if has_graph else {}
    exact, loss = (
        SCALE * EVERY[name](student, teacher, **options),
        SCALE * EVERY[name](rounded, teacher.to(dtype), **options),
    )
    value_error, local_error, other_error = TOLERANCES[dtype]
    if name.endswith(', in'):  # rows of few edges, of which one may swap
        value_error, local_error = 4 * value_error, 1.5 * local_error
    assert abs(float((loss / exact).detach()) - 1) < value_error
    wanted, gradient = gradient_of(exact, student), gradient_of(loss, rounded).float()
    relative_error = float((gradient - wanted).norm() / wanted.norm())
    assert relative_error < (local_error if has_graph else other_error)


@EVERY_WAY
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(name, dtype):
    student, teacher = EVERY[name].pair(dtype=dtype)
    expected = EVERY[name](student, teacher)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = EVERY[name](student, teacher)
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, rtol=1e-6)
    wanted = gradient_of(expected, student)
    assert_close(gradient_of(actual, student), wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize('name', ['local, raw', 'local, softmax_edges, raw'])
def test_autocast_does_not_blur_the_neighbors_of_raw_tokens(name):
    student, teacher = torch.randn(1, 64, 16) + 30, torch.randn(1, 64, 16) - 30
    expected = EVERY[name].expected(student, teacher, sigma=10.0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_close(EVERY[name](student, teacher, sigma=10.0), expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'block_bytes'),
    [*((name, None) for name in WAYS), *((name, 20 * 48 * 4) for name in ('local', 'global', 'contextual'))],
)
def test_it_compiles(name, block_bytes, monkeypatch):
    """In one graph from torch 2.15 on; older releases compile the graphs around the Python that they do not trace."""
    torch.compiler.reset()
    if block_bytes is not None:
        monkeypatch.setattr(_blocks, 'CPU_BLOCK_BYTES', block_bytes)
    loss = EVERY[name]
    student, teacher = loss.pair((6, 8, 6))
    in_one_graph = IN_ONE_GRAPH and block_bytes is None and 'Loss' not in name
    compiled = torch.compile(lambda *tokens: loss(*tokens), fullgraph=in_one_graph, backend='aot_eager')(
        student, teacher
    )
    expected = loss(student, teacher)
    assert_close(compiled, expected, rtol=1e-6)
    wanted, found = gradient_of(expected, student), gradient_of(compiled, student)
    assert_close(found, wanted, rtol=1e-4, atol=1e-7)
