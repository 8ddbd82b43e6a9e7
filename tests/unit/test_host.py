"""The view of the host's boxes; with real boxes in tests/integration."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.integration.host import box_from, full_method
from tests.unit.boxes import FakeBox, training_box
from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box


@pytest.mark.parametrize(
    ('kind', 'lacking'),
    [
        ((), ['optimizer']),
        ((), ['stage_grad_count', 'post_forward_process', 'student_io_dict', 'teacher_updatable']),
        (('stage_number',), ['org_student_model']),
        (('teacher_model',), ['current_epoch', 'model']),
        (('teacher_model', 'stage_number'), ['model_forward_proc', 'org_model']),
    ],
)
def test_a_box_of_another_torchdistill_is_refused_by_name_and_version(kind, lacking, monkeypatch):
    monkeypatch.setattr('trg_torchdistill.host.version', {'torchdistill': '9.8.7'}.get)
    Box(FakeBox(lacking=kind))
    with pytest.raises(TRGError, match=r'got version 9\.8\.7, of which a `FakeBox` has not; install') as error:
        Box(FakeBox(lacking=(*kind, *lacking)))
    told = re.findall('`([a-z_]+)`', str(error.value).partition(', got')[0])
    assert sorted(told) == sorted(lacking)


def test_a_view_shows_the_box_as_it_is_now(tmp_path):
    host = box_from(tmp_path, full_method())
    box = Box(host)
    assert (box.sides, box.student, box.teacher) == (('teacher', 'student'), host.student_model, host.teacher_model)
    assert [*box.terms] == ['ce', 'trg']
    assert 'layer4' in box.hooked()['teacher']
    modules = box.modules()
    assert [*modules] == ['student', 'student_of_stage', 'teacher', 'teacher_of_stage']
    assert modules['student'] is host.org_student_model
    wrapper = nn.DataParallel(host.student_model)
    box.replace_model('student', wrapper)
    assert host.student_model is box.student is wrapper
    assert box.modules()['student_of_stage'] is wrapper.module
    box.stage_grad_count += 2
    assert host.stage_grad_count == 2
    assert {id(parameter) for parameter in box.trained} <= {id(parameter) for parameter in wrapper.parameters()}


def test_terms_leave_the_loss_for_a_while_only():
    terms = {name: (nn.L1Loss(), 1.0) for name in ('a', 'b')}
    box = Box(training_box(criterion=SimpleNamespace(term_dict=terms)))
    with box.without(['b', 'c']):
        assert [*box.terms] == ['a']
    with pytest.raises(KeyboardInterrupt), box.without(['a']):
        raise KeyboardInterrupt
    assert box.criterion.term_dict is terms


def test_a_state_brings_back_what_training_changed(tmp_path):
    """The second box trains another step before; then both go on alike."""
    boxes = [box_from(tmp_path, full_method()) for _ in range(2)]
    first, second = map(Box, boxes)
    for box in (first, second, second):
        box.pre_epoch_process(epoch=0)
        images, labels, supplement = next(iter(box.train_data_loader))
        box.post_forward_process(loss=box.forward_process(images, labels, supplement))
    first.student.eval()
    second.load_state(first.state(), first.own_state())
    assert second.stage_grad_count == first.stage_grad_count == 1
    assert not any(module.training for module in second.student.modules())
    states = [torch.cat([value.flatten() for value in box.student.parameters()]) for box in (first, second)]
    assert torch.equal(*states)
