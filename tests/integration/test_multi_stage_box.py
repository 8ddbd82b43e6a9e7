"""TRG in the stages of torchdistill's multi-stage box: epochs and temperature count within the stage."""

import pytest
import torch
from host import (
    BOTH_PROCESSES,
    CE,
    TinyCnn,
    box_from,
    full_method,
    indent,
    load,
    make_training_box,
    one_step,
    our_losses,
    stages,
    train_epoch,
    train_yaml,
    trg_term,
)
from torchdistill.core.distillation import MultiStagesDistillationBox

CE_ONLY = train_yaml('', teacher='', student='')


def with_ckpt(text, path):
    return text.replace('kwargs:\n      projectors:', f"kwargs:\n      projector_ckpt: '{path}'\n      projectors:")


def temperatures_over_all_epochs(box):
    """Trains all epochs; the temperature in use during each, None in a stage without TRG."""
    seen = []
    for epoch in range(box.num_epochs):
        used = []
        train_epoch(box, epoch, lambda box, used=used: used.extend(our_losses(box).values()))
        seen.append(used[0].current_temperature if used else None)
    return seen


SHORT = full_method(num_epochs=1)
LONG = full_method(num_epochs=3)


@pytest.mark.parametrize(
    ('texts', 'expected'),
    [
        ((CE_ONLY, LONG), [None, None, 0.5, 0.3, 0.1]),
        ((LONG, CE_ONLY), [0.5, 0.3, 0.1, None, None]),
        ((full_method(), LONG), [0.5, 0.1, 0.5, 0.3, 0.1]),
        ((SHORT, CE_ONLY, full_method()), [0.5, None, None, 0.5, 0.1]),
    ],
    ids=['stage 2', 'stage 1', 'both', 'stages 1 and 3'],
)
def test_the_temperature_starts_in_each_stage_that_has_one(tmp_path, texts, expected):
    box = box_from(tmp_path, stages(*texts))
    assert type(box) is MultiStagesDistillationBox
    assert temperatures_over_all_epochs(box) == pytest.approx(expected)
    assert isinstance(box.student_model, TinyCnn) == (texts[-1] is CE_ONLY)


def test_frozen_teacher_is_in_eval_in_each_stage(tmp_path):
    box = box_from(
        tmp_path, stages(CE_ONLY.replace('num_epochs: 2', f'num_epochs: 1\n{BOTH_PROCESSES}'), full_method())
    )
    before = {name: value.clone() for name, value in box.org_teacher_model.state_dict().items()}
    for epoch in range(box.num_epochs):
        train_epoch(box, epoch)
        assert not box.teacher_model.training
    for name, value in box.org_teacher_model.state_dict().items():
        assert torch.equal(value, before[name]), f'{name} of the teacher changed'


def test_process_of_stage_1_does_not_reach_stage_2(tmp_path):
    box = box_from(tmp_path, stages(SHORT, full_method(top='')))
    train_epoch(box, 0)
    message = "add `pre_epoch_process: 'pre_epoch_process_with_trg'` under `train:` .under the stage"
    with pytest.raises(ValueError, match=message):
        one_step(box, 1)


@pytest.mark.parametrize('kept', [True, False])
@pytest.mark.parametrize('between', [(), (CE_ONLY.replace('num_epochs: 2', 'num_epochs: 1'),)], ids=['next', 'later'])
def test_projectors_go_on_in_a_later_stage_if_they_have_a_file(tmp_path, kept, between):
    text = with_ckpt(SHORT, tmp_path / 'new folder' / 'projectors.pt') if kept else SHORT
    box = box_from(tmp_path, stages(text, *between, text))
    fresh = projector_of(box)
    seen = []
    train_epoch(box, 0, lambda box: seen.append(projector_of(box)))
    for epoch, _ in enumerate(between, 1):
        train_epoch(box, epoch)
    assert box.stage_number == 2 + len(between)
    assert not torch.equal(seen[-1], fresh)
    assert torch.equal(projector_of(box), seen[-1]) == kept


def test_student_goes_on_from_stage_to_stage(tmp_path):
    box = box_from(tmp_path, stages(SHORT, SHORT))
    seen = []
    train_epoch(box, 0, lambda box: seen.append(box.student_model.state_dict()['fc.weight'].clone()))
    assert torch.equal(box.student_model.state_dict()['fc.weight'], seen[-1])
    assert box.student_model.student_model is box.org_student_model


def test_multi_stage_training_without_a_teacher(tmp_path):
    """The processes also serve the host's boxes without a teacher."""
    config = load(tmp_path, stages(*[train_yaml('', '', '', BOTH_PROCESSES)] * 2))
    box = make_training_box(config, TinyCnn())
    losses = [train_epoch(box, epoch)[0] for epoch in range(box.num_epochs)]
    assert losses[-1] < losses[0]
    assert box.stage_number == 2


def projector_of(box):
    return box.student_model.projectors['layer4'].linear.weight.detach().clone()


def test_trg_after_a_stage_that_trains_a_part_of_the_student(tmp_path):
    """Stage 1 cuts both models after `layer3`; stage 2 has them whole again, with wrapper, hooks and temperature."""
    part = "sequential: ['layer3']\nforward_hook: {input: [], output: ['layer3']}"
    hint = train_yaml(
        trg_term('layer3', 'layer3', key='TokenContextualLoss', name='hint'), teacher=part, student=part, num_epochs=1
    ).replace(indent(CE, 6), '')
    box = box_from(tmp_path, stages(hint, full_method()))
    assert temperatures_over_all_epochs(box) == pytest.approx([None, 0.5, 0.1])
    assert box.student_model.student_model is box.org_student_model


def test_two_boxes_in_one_process_count_their_own_epochs(tmp_path):
    """The host keeps the processes on the class, for all boxes: ours keep nothing of a box."""
    first = box_from(tmp_path, stages(full_method(), LONG))
    plain = train_yaml('', teacher='', student='', top=BOTH_PROCESSES, num_epochs=1)
    second = box_from(tmp_path, stages(plain, LONG))
    seen = {0: [], 1: []}
    for epoch in range(4):
        for number, box in enumerate((first, second)):
            box.pre_epoch_process(epoch=epoch)
            seen[number] += [loss.current_temperature for loss in our_losses(box).values()]
            box.post_epoch_process()
    assert seen[0] == pytest.approx([0.5, 0.1, 0.5, 0.3])
    assert seen[1] == pytest.approx([0.5, 0.3, 0.1])


def test_a_later_box_that_takes_our_process_away_is_not_silent(tmp_path):
    """The host's default process, set for all boxes by the last one, tells no epoch: an error, not a stuck value."""
    box = box_from(tmp_path, stages(full_method(), CE_ONLY))
    box_from(tmp_path, CE_ONLY)
    with pytest.raises(ValueError, match="add `pre_epoch_process: 'pre_epoch_process_with_trg'`"):
        one_step(box, 0)
