"""Features that autocast left in half precision: how far losses and gradients may be from those of float32.

The losses compute in float32; what remains is the rounding of the features. Two distances that agree in all kept digits
may swap, so a neighbour may change: that is most of the local term's error. The gradients of the contextual term are
small, and in fp16 only those are seen that the scale of the loss, here that of a new GradScaler, lifts above 6e-8.
"""

import pytest
import torch
from helpers import gradient_of

from trg_torchdistill import contextual_loss, global_relationship_loss, local_preserving_loss

SCALE = 2.0**16


def _on_graph(loss, **options):
    return lambda student, teacher: loss(student.flatten(0, 1), teacher.flatten(0, 1), **options)


LOSSES = {
    'local': _on_graph(local_preserving_loss),
    'local, neighbors': _on_graph(local_preserving_loss, affinity_support='neighbors'),
    'global': _on_graph(global_relationship_loss),
    'contextual': contextual_loss,
    'contextual, unit': lambda student, teacher: contextual_loss(student, teacher, normalize_tokens=True),
}
# dtype -> relative error of a loss, of the local term's gradient, of another gradient
TOLERANCES = {torch.bfloat16: (5e-3, 0.12, 0.015), torch.float16: (2e-3, 0.08, 0.02)}


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('width', [64, 512])
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_features_give_the_loss_within_its_tolerance(name, dtype, width, seed):
    torch.manual_seed(seed)
    teacher = 0.3 * (torch.randn(32, 1, width) + torch.randn(32, 16, width))
    student = (teacher + 0.15 * torch.randn_like(teacher)).requires_grad_()
    rounded = student.detach().to(dtype).requires_grad_()
    exact, loss = SCALE * LOSSES[name](student, teacher), SCALE * LOSSES[name](rounded, teacher.to(dtype))
    value_error, local_error, other_error = TOLERANCES[dtype]
    assert loss.dtype == torch.float32
    assert abs(float((loss / exact).detach()) - 1) < value_error
    wanted, gradient = gradient_of(exact, student), gradient_of(loss, rounded).float()
    relative_error = float((gradient - wanted).norm() / wanted.norm())
    assert relative_error < (local_error if name.startswith('local') else other_error)
