"""`train --amp`: near float32, and float16's scaled gradients, which the host does not have; `--channels_last`."""

import pytest
import torch
from host import SGD, box_from, full_method
from tiny import CE, KD, TRG, TRG_SIDES, last_state, lines_of, stage, train, write_training
from torchdistill.core.interfaces.registry import register_post_forward_proc_func

from trg_torchdistill.cli.measure.evaluation import evaluate
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.precision import Precision, choose_precision
from trg_torchdistill.cli.runtime.processes import ALONE
from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box

CPU = torch.device('cpu')
FULL = stage(2, CE + KD + TRG, sides=TRG_SIDES)


@pytest.fixture(scope='module')
def losses(tmp_path_factory):
    """Of training in float32."""
    folder = tmp_path_factory.mktemp('float32')
    assert train(write_training(folder, FULL), '--seed', '3') == 0
    return [line['loss'] for line in lines_of(folder)]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['bf16', 'fp16'])
def test_the_loss_stays_near_that_of_float32(name, losses, tmp_path):
    assert train(write_training(tmp_path, FULL), '--seed', '3', '--amp', name) == 0
    lines = lines_of(tmp_path)
    found = [line['loss'] for line in lines]
    assert found != losses
    assert found == pytest.approx(losses, rel=0.03)
    assert all(('skipped_steps' in line) == (name == 'fp16') for line in lines)
    assert all(value.dtype != torch.bfloat16 for value in last_state(tmp_path)['modules']['student'].values())


def test_another_precision_on_resume_is_told(tmp_path, capsys):
    assert train(write_training(tmp_path, stage(1, CE)), '--seed', '3', '--amp', 'fp16') == 0
    assert train(write_training(tmp_path, stage(2, CE)), '--seed', '3', '--resume') == 0
    assert 'WARNING: this run went on with --amp fp16, now it is None' in capsys.readouterr().out


SCHEDULERS = {
    'none': '',
    'by steps': "scheduler: {key: 'ExponentialLR', kwargs: {gamma: 0.9}, scheduling_step: 2}",
    'restarts': "scheduler: {key: 'CosineAnnealingWarmRestarts', kwargs: {T_0: 2}, scheduling_step: 2}",
}
OPTIMIZERS = {
    'plain': SGD,
    'accumulated': SGD.replace('kwargs:', 'grad_accum_step: 2, kwargs:'),
    'clipped': SGD.replace('kwargs:', 'max_grad_norm: 0.5, kwargs:'),
    'both': SGD.replace('kwargs:', 'grad_accum_step: 2, max_grad_norm: 0.5, kwargs:'),
}


def scaled(precision):
    return lambda box, loss: precision.post_forward_process(Box(box), loss)


def run_steps(box, process, steps=5):
    """Trains on one batch in float32 through a post-forward process."""
    torch.manual_seed(0)
    box.pre_epoch_process(epoch=0)
    for _ in range(steps):
        for images, targets, supplement in box.train_data_loader:
            process(box, box.forward_process(images, targets, supplement))
    return [value.detach().clone() for value in box.student_model.parameters()], box.optimizer.param_groups[0]['lr']


@pytest.mark.parametrize('scheduler', SCHEDULERS)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_scaled_gradients_do_what_the_hosts_default_does(scheduler, optimizer, tmp_path):
    """In float32 the scale, a power of two, is without effect."""
    text = full_method(optimizer=f'{OPTIMIZERS[optimizer]}\n{SCHEDULERS[scheduler]}')
    found = []
    for process in (lambda box, loss: box.post_forward_process(loss=loss), scaled(Precision('fp16', CPU))):
        torch.manual_seed(0)
        found.append(run_steps(box_from(tmp_path, text), process))
    (expected, expected_lr), (values, lr) = found
    assert lr == expected_lr
    for value, wanted in zip(values, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


def test_an_infinite_gradient_skips_the_weights_and_the_stepwise_scheduler(tmp_path):
    box = box_from(tmp_path, full_method(optimizer=f'{SGD}\n{SCHEDULERS["by steps"]}'.replace('step: 2', 'step: 1')))
    precision = Precision('fp16', CPU)
    weight = box.student_model.student_model.fc.weight
    scale = precision.state()['scaler']['scale']
    handle = weight.register_hook(lambda gradient: gradient * float('inf'))
    before, lr = run_steps(box, lambda box, loss: None)
    after, lr_after = run_steps(box, scaled(precision), steps=1)
    assert precision.skipped_steps == 1
    assert precision.state()['scaler']['scale'] == scale / 2
    assert lr_after == lr
    assert all(torch.equal(value, wanted) for value, wanted in zip(after, before, strict=True))
    handle.remove()
    after, lr_after = run_steps(box, scaled(precision), steps=1)
    assert precision.skipped_steps == 1
    assert lr_after == pytest.approx(0.9 * lr)
    assert not torch.equal(weight, before[[id(value) for value in box.student_model.parameters()].index(id(weight))])


def test_an_infinite_loss_stays_an_error(tmp_path, capsys):
    late = "late: {criterion: {key: 'LateNan', kwargs: {step: 4}}, weight: 1.0}\n"
    assert train(write_training(tmp_path, stage(3, CE + late)), '--amp', 'fp16') == 1
    error = capsys.readouterr().err
    assert 'the loss is nan in epoch 2, step 2; not finite: `late`.' in error
    assert 'or train without `--amp fp16`' in error


@register_post_forward_proc_func
def own_post_forward_process(self, loss, **kwargs):
    loss.backward()


def test_an_own_post_forward_process_cannot_be_scaled(tmp_path, capsys):
    config = write_training(tmp_path, stage(1, CE, more="post_forward_process: 'own_post_forward_process'\n"))
    assert train(config, '--amp', 'fp16') == 2
    error = capsys.readouterr().err
    assert 'expected `train.post_forward_process` (line ' in error
    assert "to be 'default_post_forward_process' with `--amp fp16`" in error
    assert train(config, '--amp', 'bf16') == 0


def test_a_device_that_lacks_the_type(tmp_path):
    with pytest.raises(TRGError, match=r'compute in the type of `--amp fp16`, got meta, RuntimeError: .*meta'):
        choose_precision('fp16', torch.device('meta'), Config(tmp_path, '', {}))


@pytest.mark.parametrize('scaler', [None, {}])
def test_a_state_without_a_scale_starts_it_anew(scaler):
    precision = Precision('fp16', CPU)
    precision.restore({'name': None, 'scaler': scaler})
    assert precision.state() == Precision('fp16', CPU).state()


def test_evaluation_is_under_the_same_autocast():
    types = []
    model = torch.nn.Linear(2, 2)
    model.register_forward_hook(lambda module, args, output: types.append(output.dtype))
    for precision in (Precision(), Precision('bf16', CPU)):
        evaluate(model, [(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))], CPU, ALONE, precision)
    assert types == [torch.float32, torch.bfloat16]


def kernels(folder):
    """Convolution weights whose layout can be told: those of more than one channel and more than one pixel."""
    weights = last_state(folder)['modules']['student'].values()
    found = [weight for weight in weights if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2] > 1]
    assert found
    return found


@pytest.mark.slow
def test_channels_last_changes_the_layout_only(tmp_path, monkeypatch):
    """Without dropout, whose mask is drawn in the order of memory."""
    monkeypatch.setattr(torch.nn.Dropout, 'forward', lambda _, features: features)
    assert train(write_training(tmp_path / 'plain', FULL), '--seed', '3') == 0
    assert train(write_training(tmp_path / 'last', FULL), '--seed', '3', '--channels_last') == 0
    expected, found = ([line['loss'] for line in lines_of(tmp_path / folder)] for folder in ('plain', 'last'))
    assert found == pytest.approx(expected, rel=1e-3)
    assert all(weight.is_contiguous() for weight in kernels(tmp_path / 'plain'))
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels(tmp_path / 'last'))
