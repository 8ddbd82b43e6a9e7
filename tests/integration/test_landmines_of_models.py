"""The traps of torchdistill around models, on real boxes: modes, wrappers, hooked modules, projectors, weights.

Elsewhere: those of training in test_landmines_of_training.py; 2, 25 and 27 (what losses, averages and projectors hold)
in the unit tests; 5, 6, 7 and a file of 31 that does not fit in test_malformed_yaml.py; 9 in 1; 21, 22 and 23 (ranks,
unused head, frozen parameters) in test_ddp.py, since they need two processes.
Not ours: 20 (the host's NCCL start; the `train` command has its own), 26 (workers that spawn: this package registers no
collate function and no data set wrapper), 28 (the host's words for a missing `kwargs:` and shared anchors; the `check`
command and the sample configs).
"""

import textwrap

import pytest
import torch
from host import (
    BOTH_PROCESSES,
    LAYER4,
    TinyCnn,
    box_from,
    evaluate,
    full_method,
    one_step,
    our_losses,
    projection,
    train_epoch,
    train_yaml,
    trg_term,
)
from torch import nn

from trg_torchdistill import TokenContextualLoss, TRGLoss

PATHS = ('layer4', 'output', 'layer4', 'output')


def _state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _differing(module, before):
    return [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]


def test_landmine_01_teacher_in_eval(tmp_path):
    """The host leaves a frozen teacher in train mode: BatchNorm moves, dropout fires. Our process ends that."""
    box = box_from(tmp_path, full_method(top=''), TinyCnn(12, dropout=0.5))
    box.criterion.term_dict.pop('trg')
    before = _state(box.org_teacher_model)
    train_epoch(box, 0)
    assert any('running_mean' in name for name in _differing(box.org_teacher_model, before))

    box = box_from(tmp_path, full_method(num_epochs=3), TinyCnn(12, dropout=0.5))
    images = torch.randn(8, 3, 16, 16)
    for epoch in range(3):
        box.teacher_model.train()  # whatever a trainer does between epochs
        before = _state(box.org_teacher_model)
        train_epoch(box, epoch)
        assert _differing(box.org_teacher_model, before) == []
        assert torch.equal(box.teacher_model(images), box.teacher_model(images))
        assert torch.allclose(box.teacher_model(images)[:2], box.teacher_model(images[:2]), atol=1e-6)


def test_landmine_01_updatable_teacher_stays_in_train_mode(tmp_path):
    box = box_from(
        tmp_path, train_yaml(top=BOTH_PROCESSES).replace('requires_grad: False', 'requires_grad: True'), TinyCnn()
    )
    box.pre_epoch_process(epoch=0)
    assert box.teacher_model.training


def test_landmine_04_module_wise_configs_can_name_the_projectors(tmp_path):
    modules = """
        optimizer:
          key: 'SGD'
          kwargs: {lr: 0.1}
          module_wise_configs:
            - {module: 'student_model', kwargs: {lr: 0.01}}
            - {module: 'projectors', kwargs: {lr: 0.5}}
        """
    box = box_from(tmp_path, full_method(optimizer=textwrap.dedent(modules)))
    before = box.student_model.projectors['layer4'].linear.weight.detach().clone()
    assert [group['lr'] for group in box.optimizer.param_groups] == [0.01, 0.5]
    one_step(box)
    assert not torch.equal(box.student_model.projectors['layer4'].linear.weight, before)


class AttentionCnn(TinyCnn):
    """A CNN with a torch.nn.MultiheadAttention over its cells: the module returns a tuple (output, None)."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images):
        tokens = self.layer4(self.layer3(images)).flatten(2).transpose(1, 2)
        return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_landmine_08_attention_module_gives_its_first_tensor(tmp_path):
    hook = "forward_hook: {input: [], output: ['attention']}"
    box = box_from(tmp_path, train_yaml(trg_term('attention', 'attention'), hook, hook), AttentionCnn(), AttentionCnn())
    assert one_step(box).isfinite()
    assert our_losses(box)['trg'].terms()['global'][1] > 0


def test_landmine_08_out_proj_of_attention_never_runs(tmp_path):
    hook = "forward_hook: {input: [], output: ['attention.out_proj']}"
    text = train_yaml(trg_term('attention.out_proj', 'attention.out_proj'), hook, hook)
    with pytest.raises(ValueError, match='did not run in this step; hook a module that the forward pass calls'):
        one_step(box_from(tmp_path, text, AttentionCnn(), AttentionCnn()))


def test_landmine_10_hooked_values_are_not_changed(tmp_path):
    loss, inner = TRGLoss(*PATHS), TokenContextualLoss(*PATHS)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    io_dicts = {'layer4': {'output': student.clone()}}, {'layer4': {'output': teacher.clone()}}
    first = loss(*io_dicts), inner(*io_dicts)
    assert torch.equal(io_dicts[0]['layer4']['output'], student)
    assert torch.equal(io_dicts[1]['layer4']['output'], teacher)
    assert inner(*io_dicts) == first[1]


@pytest.mark.filterwarnings('ignore:expected `num_neighbors`')
@pytest.mark.parametrize('batch_size', [1, 8])
def test_landmine_11_a_projector_returns_a_batch_of_sequences(tmp_path, batch_size):
    hook = projection('pooled', 'pool')
    terms = trg_term('student_model.pool', 'pool', "projection_module_path: 'projectors.pooled'")
    text = train_yaml(terms, LAYER4.replace('layer4', 'pool'), hook, BOTH_PROCESSES, batch_size=batch_size)
    box = box_from(tmp_path, text, TinyCnn(12), TinyCnn(8).eval())
    shapes = []
    box.student_model.projectors['pooled'].register_forward_hook(lambda *args: shapes.append(args[2].shape))
    one_step(box)
    assert shapes == [(batch_size, 1, 12)]


def test_landmine_12_stale_features_of_the_evaluation_are_cleared(tmp_path):
    """Validation batches have another size (3, 3, 3, 1); the next epoch starts without their features."""
    box = box_from(tmp_path, full_method())
    train_epoch(box, 0)
    assert len(box.student_io_dict['student_model.layer4']['output']['cpu']) == 1
    box.pre_epoch_process(epoch=1)
    for io_dict in (box.student_io_dict, box.teacher_io_dict):
        assert not any(values for ends in io_dict.values() for values in ends.values())


def test_landmine_24_evaluation_before_training_leaves_no_inference_tensor(tmp_path):
    box = box_from(tmp_path, full_method())
    evaluate(box.student_model, box.val_data_loader)
    with torch.inference_mode():
        box.pre_epoch_process(epoch=0)
        images, targets, supp_dict = next(iter(box.train_data_loader))
        assert box.forward_process(images, targets, supp_dict).isfinite()
    assert len(train_epoch(box, 0)) == 1
    assert all(value > 0 for value in our_losses(box)['trg'].epoch_means().values())


def test_landmine_31_projector_file_that_is_read_is_logged(tmp_path, caplog):
    path = tmp_path / 'projectors.pt'
    text = full_method().replace('      projectors:\n', f"      projector_ckpt: '{path}'\n      projectors:\n")
    train_epoch(box_from(tmp_path, text), 0)
    assert 'Loaded projections' not in caplog.text
    box_from(tmp_path, text)
    assert f'Loaded projections of the student tokens from {path}' in caplog.messages
