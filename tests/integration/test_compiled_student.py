"""A student that is compiled in place, inside torchdistill's box: its hooks still see the features."""

import pytest
import torch
from host import box_from, full_method, our_losses, train_epoch, trg_term
from torch._dynamo.utils import counters

pytestmark = pytest.mark.slow

BACKEND = 'aot_eager'
TERMS = trg_term('student_model.layer4', name='contextual', key='TokenContextualLoss')


def trained(tmp_path, compiles):
    torch.manual_seed(0)
    box = box_from(tmp_path, full_method(TERMS), num_images=16)
    if compiles:
        box.org_student_model.compile(backend=BACKEND)
    losses = [train_epoch(box, epoch) for epoch in range(2)]
    return losses, {name: loss.epoch_means() for name, loss in our_losses(box).items()}


def test_a_student_compiled_in_place_trains_like_a_plain_one(tmp_path):
    torch.compiler.reset()
    counters.clear()
    plain, compiled = trained(tmp_path, False), trained(tmp_path, True)
    assert counters['stats']['unique_graphs'] > 0
    for losses, expected in zip(compiled[0], plain[0], strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)
    for name, means in plain[1].items():
        assert compiled[1][name] == pytest.approx(means, rel=1e-4)
