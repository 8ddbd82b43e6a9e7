"""TRG in the stages of torchdistill's multi-stage box: epochs and temperature count within the stage."""

import textwrap

import pytest
import torch
from host import (
    BOTH_PROCESSES,
    CE_TERM,
    TinyCnn,
    box_from,
    full_method,
    load,
    make_data,
    one_step,
    our_losses,
    train_epoch,
    train_yaml,
    trg_term,
)
from torchdistill.core.distillation import MultiStagesDistillationBox
from torchdistill.core.training import get_training_box

CE_ONLY = train_yaml('', teacher='', student='')


def stages(*texts):
    return ''.join(f'stage{n}:\n{textwrap.indent(text, "  ")}' for n, text in enumerate(texts, 1))


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


def test_trg_in_stage_2_only(tmp_path):
    box = box_from(tmp_path, stages(CE_ONLY, full_method(num_epochs=3)))
    assert type(box) is MultiStagesDistillationBox
    assert temperatures_over_all_epochs(box) == pytest.approx([None, None, 0.5, 0.3, 0.1])


def test_trg_in_stage_1_only(tmp_path):
    box = box_from(tmp_path, stages(full_method(num_epochs=3), CE_ONLY))
    assert temperatures_over_all_epochs(box) == pytest.approx([0.5, 0.3, 0.1, None, None])
    assert isinstance(box.student_model, TinyCnn)


def test_each_stage_starts_the_temperature_again(tmp_path):
    box = box_from(tmp_path, stages(full_method(), full_method(num_epochs=3)))
    assert temperatures_over_all_epochs(box) == pytest.approx([0.5, 0.1, 0.5, 0.3, 0.1])


def test_three_stages_count_the_epochs_of_their_own(tmp_path):
    box = box_from(tmp_path, stages(full_method(num_epochs=1), CE_ONLY, full_method(num_epochs=2)))
    assert temperatures_over_all_epochs(box) == pytest.approx([0.5, None, None, 0.5, 0.1])


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
    box = box_from(tmp_path, stages(full_method(num_epochs=1), full_method(top='')))
    train_epoch(box, 0)
    message = "add `pre_epoch_process: 'pre_epoch_process_with_trg'` under `train:` .under the stage"
    with pytest.raises(ValueError, match=message):
        one_step(box, 1)


def test_projector_ckpt_carries_the_projectors_over_to_the_next_stage(tmp_path):
    text = with_ckpt(full_method(num_epochs=1), tmp_path / 'new folder' / 'projectors.pt')
    box = box_from(tmp_path, stages(text, text))
    fresh = projector_of(box)
    seen = []
    train_epoch(box, 0, lambda box: seen.append(projector_of(box)))
    assert box.stage_number == 2
    assert not torch.equal(seen[-1], fresh)
    assert torch.equal(projector_of(box), seen[-1])


def test_projectors_restart_in_the_next_stage_without_a_ckpt(tmp_path):
    text = full_method(num_epochs=1)
    box = box_from(tmp_path, stages(text, text))
    seen = []
    train_epoch(box, 0, lambda box: seen.append(projector_of(box)))
    assert box.stage_number == 2
    assert not torch.equal(projector_of(box), seen[-1])


def test_student_goes_on_from_stage_to_stage(tmp_path):
    box = box_from(tmp_path, stages(full_method(num_epochs=1), full_method(num_epochs=1)))
    seen = []
    train_epoch(box, 0, lambda box: seen.append(box.student_model.state_dict()['fc.weight'].clone()))
    assert torch.equal(box.student_model.state_dict()['fc.weight'], seen[-1])
    assert box.student_model.student_model is box.org_student_model


def test_multi_stage_training_without_a_teacher(tmp_path):
    """The processes also serve the host's boxes without a teacher."""
    config = load(tmp_path, stages(*[train_yaml('', '', '', BOTH_PROCESSES)] * 2))
    for stage in config.values():
        stage['model'] = stage['student']
    data = {'train': make_data(), 'val': make_data(10, 1)}
    box = get_training_box(TinyCnn(), data, config, torch.device('cpu'), None, False, 1)
    losses = [train_epoch(box, epoch)[0] for epoch in range(box.num_epochs)]
    assert losses[-1] < losses[0]
    assert box.stage_number == 2


def projector_of(box):
    return box.student_model.projectors['layer4'].linear.weight.detach().clone()


def test_projectors_survive_a_stage_without_them(tmp_path):
    text = with_ckpt(full_method(num_epochs=1), tmp_path / 'projectors.pt')
    box = box_from(tmp_path, stages(text, CE_ONLY.replace('num_epochs: 2', 'num_epochs: 1'), text))
    seen = []
    train_epoch(box, 0, lambda box: seen.append(projector_of(box)))
    train_epoch(box, 1)
    assert box.stage_number == 3
    assert torch.equal(projector_of(box), seen[-1])


def test_projectors_of_another_stage_that_do_not_fit_are_refused(tmp_path):
    text = with_ckpt(full_method(num_epochs=1), tmp_path / 'projectors.pt')
    other = text.replace('out_features: 12', 'out_features: 13')
    box = box_from(tmp_path, stages(text, other))
    assert other != text
    with pytest.raises(
        ValueError, match=r'`projector_ckpt` to hold .*\[13, 8\].* got .*\[12, 8\].*change `projector_ckpt'
    ):
        train_epoch(box, 0)


def test_trg_after_a_stage_that_trains_a_part_of_the_student(tmp_path):
    """Stage 1 cuts both models after `layer3`; stage 2 has them whole again, with wrapper, hooks and temperature."""
    part = "sequential: ['layer3']\nforward_hook: {input: [], output: ['layer3']}"
    hint = train_yaml(
        trg_term('layer3', 'layer3', key='TokenContextualLoss', name='hint'), teacher=part, student=part, num_epochs=1
    ).replace(textwrap.indent(textwrap.dedent(CE_TERM).strip('\n'), ' ' * 6), '')
    box = box_from(tmp_path, stages(hint, full_method()))
    assert temperatures_over_all_epochs(box) == pytest.approx([None, 0.5, 0.1])
    assert box.student_model.student_model is box.org_student_model


def test_two_boxes_in_one_process_count_their_own_epochs(tmp_path):
    """The host keeps the processes on the class, for all boxes: ours keep nothing of a box."""
    first = box_from(tmp_path, stages(full_method(), full_method(num_epochs=3)))
    plain = train_yaml('', teacher='', student='', top=BOTH_PROCESSES, num_epochs=1)
    second = box_from(tmp_path, stages(plain, full_method(num_epochs=3)))
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
