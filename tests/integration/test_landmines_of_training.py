"""The traps of torchdistill around training, on real boxes: processes, epochs, optimizers, losses, precision, logs."""

import logging

import pytest
import torch
import torchvision
from host import (
    BOTH_PROCESSES,
    SGD,
    TinyCnn,
    box_from,
    full_method,
    load,
    make_training_box,
    one_step,
    our_losses,
    train_epoch,
    train_yaml,
    trg_term,
)
from torch import nn
from torchdistill.core.distillation import DistillationBox
from torchdistill.core.interfaces.registry import POST_FORWARD_PROC_FUNC_DICT, PRE_FORWARD_PROC_FUNC_DICT
from torchdistill.losses.high_level import WeightedSumLoss
from torchdistill.losses.mid_level import KDLoss
from torchdistill.losses.registry import LOSS_DICT, MIDDLE_LEVEL_LOSS_DICT, get_loss_wrapper, register_loss_wrapper

from trg_torchdistill import TRGLoss
from trg_torchdistill.host import relation_losses
from trg_torchdistill.procs import pre_epoch_process_with_trg
from trg_torchdistill.registration import TABLE

PATHS = ('layer4', 'output', 'layer4', 'output')
CE_ONLY = train_yaml('', teacher='', student='', top=BOTH_PROCESSES)


@pytest.mark.parametrize(
    'scheduler',
    [
        "{key: 'MultiStepLR', kwargs: {milestones: [1], gamma: 0.1}}",
        "{key: 'CosineAnnealingLR', kwargs: {T_max: 2}}",
        "{key: 'LinearLR', kwargs: {start_factor: 0.5, total_iters: 2}}",
        "{key: 'OneCycleLR', kwargs: {max_lr: 0.1, total_steps: 8}}",
        "{key: 'LambdaLR', kwargs: {lr_lambda: !import_get {key: 'math.exp'}}}",
    ],
)
def test_landmine_03_no_param_group_is_added_under_any_scheduler(tmp_path, scheduler):
    box = box_from(tmp_path, full_method(optimizer=f'{SGD}\nscheduler: {scheduler}'))
    groups = len(box.optimizer.param_groups)
    rates = []
    for epoch in range(2):
        train_epoch(box, epoch)
        rates.append(box.optimizer.param_groups[0]['lr'])
    assert len(box.optimizer.param_groups) == groups == 1
    assert rates[0] != rates[1] or 'MultiStepLR' in scheduler


def test_landmine_13_processes_of_the_last_box_serve_every_box(tmp_path):
    """The host sets processes on the class: ours must also work for a box that has none of our losses."""
    plain = box_from(tmp_path, train_yaml('', teacher='', student=''))
    with_trg = box_from(tmp_path, full_method())
    assert DistillationBox.pre_epoch_process is pre_epoch_process_with_trg
    assert len(train_epoch(plain, 0)) == len(train_epoch(with_trg, 0)) == 1
    assert our_losses(plain) == {}


def test_landmine_13_processes_also_serve_a_training_box(tmp_path, caplog):
    text = CE_ONLY.replace(SGD, f"{SGD}\nscheduler: {{key: 'ExponentialLR', kwargs: {{gamma: 0.5}}}}")
    box = make_training_box(load(tmp_path, text), TinyCnn())
    rate = box.optimizer.param_groups[0]['lr']
    with caplog.at_level(logging.INFO):
        losses = [train_epoch(box, epoch)[0] for epoch in range(2)]
    assert losses[1] < losses[0]
    assert box.optimizer.param_groups[0]['lr'] == rate / 4
    assert 'TRGLoss' not in caplog.text


def test_landmine_14_no_forward_process_of_a_kind_that_nobody_calls():
    assert not any('trg' in key for key in [*PRE_FORWARD_PROC_FUNC_DICT, *POST_FORWARD_PROC_FUNC_DICT])
    assert {'pre-epoch process', 'post-epoch process', 'forward process'} < {entry.kind for entry in TABLE}


def test_landmine_15_number_of_epochs_is_read_when_an_epoch_starts(tmp_path):
    box = box_from(tmp_path, full_method(num_epochs=3))
    box.num_epochs = 5  # a trainer may change it after the box is built
    box.pre_epoch_process()
    assert our_losses(box)['trg'].current_temperature is None
    box.pre_epoch_process(epoch=2, whatever='a trainer passes')
    assert our_losses(box)['trg'].current_temperature == pytest.approx(0.3)


@register_loss_wrapper(key='trg_test_loss_wrapper')
class LossWrapper(nn.Module):
    """Stands for any wrapper of the host: it holds the loss as `low_level_loss`."""

    def __init__(self, low_level_loss):
        super().__init__()
        self.low_level_loss = low_level_loss

    def forward(self, *args):
        return self.low_level_loss(*args)


def test_landmine_16_losses_are_found_behind_a_wrapper_and_without_a_yaml_key():
    plain = TRGLoss(*PATHS)
    wrapped = get_loss_wrapper(TRGLoss(*PATHS), {'key': 'trg_test_loss_wrapper'})
    losses = {'plain': plain, 'wrapped': wrapped, 'ce': nn.CrossEntropyLoss()}
    terms = {name: {'criterion': loss, 'weight': 1.0} for name, loss in losses.items()}
    assert relation_losses(WeightedSumLoss(sub_terms=terms)) == {'plain': plain, 'wrapped': wrapped.low_level_loss}
    assert relation_losses(WeightedSumLoss()) == {}
    assert relation_losses(nn.CrossEntropyLoss()) == {}


def test_landmine_16_wrapped_loss_gets_its_temperature(tmp_path):
    wrapper = "        criterion_wrapper: {key: 'trg_test_loss_wrapper'}\n        weight: 1.0\n"
    text = full_method().removesuffix('        weight: 1.0\n') + wrapper
    box = box_from(tmp_path, text)
    assert isinstance(box.criterion.term_dict['trg'][0], LossWrapper)
    assert one_step(box, epoch=1).isfinite()
    assert our_losses(box)['trg'].current_temperature == pytest.approx(0.1)


def test_landmine_17_accumulated_gradients_do_not_touch_the_logged_terms(tmp_path):
    """The host divides the loss in place; what our log reports is the undivided term."""
    accumulated = "optimizer: {key: 'SGD', grad_accum_step: 4, kwargs: {lr: 0.0}}"
    means = []
    for options in ({'optimizer': accumulated}, {'optimizer': "optimizer: {key: 'SGD', kwargs: {lr: 0.0}}"}):
        torch.manual_seed(0)
        box = box_from(tmp_path, full_method(**options))
        train_epoch(box, 0)
        means.append(our_losses(box)['trg'].epoch_means())
    assert means[0] == means[1]
    assert min(means[0].values()) > 0


@pytest.mark.parametrize('pixel', [0.0, 1e4], ids=['black images', 'bright images'])
def test_landmine_18_weights_stay_finite_on_constant_images(tmp_path, pixel):
    """The host looks for NaN after the optimizer step, too late: the loss must not produce one."""
    box = box_from(tmp_path, full_method(optimizer="optimizer: {key: 'SGD', kwargs: {lr: 1.0e-6}}"))
    box.pre_epoch_process(epoch=0)
    loss = box.forward_process(torch.full((8, 3, 16, 16), pixel), torch.zeros(8, dtype=torch.long), {})
    box.post_forward_process(loss=loss)
    assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in box.student_model.parameters())


def test_landmine_18_nan_weights_are_not_hidden(tmp_path):
    box = box_from(tmp_path, full_method())
    box.org_student_model.layer4[0].weight.data[0, 0, 0, 0] = torch.nan
    one_step(box)
    assert not any(term.isfinite() for _, term in our_losses(box)['trg'].terms().values())


def test_landmine_29_no_key_of_ours_hides_or_is_hidden_by_another():
    for entry in TABLE:
        assert not hasattr(torchvision.models, entry.key), f'the example trainer would build torchvision.{entry.key}'
        assert entry.key not in LOSS_DICT
    assert MIDDLE_LEVEL_LOSS_DICT['KDLoss'] is KDLoss


def test_landmine_30_log_has_each_term_before_its_weight(tmp_path, caplog):
    inner = trg_term('student_model.layer4', name='contextual', key='TokenContextualLoss')
    box = box_from(tmp_path, full_method(inner, batch_size=4).replace('weight: 1.0', 'weight: 0.5'))
    sums = {}

    def add_terms(box):
        for name, loss in our_losses(box).items():
            for term, (_, value) in loss.terms().items():
                sums[name, term] = sums.get((name, term), 0) + float(value)

    with caplog.at_level(logging.INFO):
        train_epoch(box, 0, add_terms)
    means = {key: f'{value / 2:.6g}' for key, value in sums.items()}
    trg = f'local {means["trg", "local"]}, global {means["trg", "global"]}, temperature 0.5'
    assert f'TRGLoss of `trg`: {trg}' in caplog.messages
    assert f'TokenContextualLoss of `contextual`: contextual {means["contextual", "contextual"]}' in caplog.messages
