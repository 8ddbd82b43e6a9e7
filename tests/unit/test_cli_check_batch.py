"""The batch size that follows from the operations of a step, counted without watching modules, and from its maps."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.integration.host import tiny_swin, tiny_vit
from trg_torchdistill.cli.check import batch as check_batch
from trg_torchdistill.cli.check.batch import Operations, check_maps, default_batch_size
from trg_torchdistill.cli.probe.probe import run_model
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError


class TokenHead(nn.Module):
    """Hands an expanded parameter to a module, as timm's CaiT does with its class token."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.project, self.join = nn.Linear(4, 2), nn.Bilinear(4, 192, 4)

    def forward(self, images):
        return self.project(self.join(self.token.expand(len(images), -1), images.flatten(1)))


class Unwatched(nn.Conv2d):
    """A module of a user that works, but not while its operations are watched."""

    def forward(self, images):
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise LookupError('not under a dispatch mode')
        return super().forward(images).mean((2, 3))


def probes_of(model):
    return {'student': run_model('net', model, (8, 8))}


def test_the_default_batch_shrinks_with_the_cost_of_a_step(monkeypatch):
    probes, notices = probes_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 2))), []
    flops = 3 * 2 * (3 * 4 * 64 + 256 * 2)
    assert default_batch_size(probes, 100, notices) == check_batch.MAX_BATCH_SIZE
    assert default_batch_size(probes, 3, notices) == 3
    assert default_batch_size(probes, 100, notices, most=100) == 100
    monkeypatch.setattr(check_batch, 'STEP_BUDGET', 8.5 * flops)
    assert default_batch_size(probes, 100, notices) == 8
    monkeypatch.setattr(check_batch, 'STEP_BUDGET', 0)
    assert default_batch_size(probes, 100, notices) == check_batch.MIN_BATCH_SIZE
    assert notices == []


@pytest.mark.parametrize('build', [tiny_vit, tiny_swin])
def test_operations_are_those_that_torch_counts(build):
    model, images = build().eval(), torch.zeros(2, 3, 16, 16)
    with torch.no_grad(), FlopCounterMode(display=False) as wanted:
        model(images)
    with torch.no_grad(), Operations() as found:
        model(images)
    assert found.total == wanted.get_total_flops() > 0


def test_a_module_that_gets_an_expanded_parameter_is_counted():
    notices = []
    assert default_batch_size(probes_of(TokenHead()), 100, notices) == check_batch.MAX_BATCH_SIZE
    assert notices == []


def test_operations_that_cannot_be_counted_cost_the_count_only():
    notices = []
    assert default_batch_size(probes_of(Unwatched(3, 4, 1)), 100, notices) == check_batch.MIN_BATCH_SIZE
    [notice] = notices
    assert notice.kind == 'uncounted_step'
    assert notice.text == (
        'the operations of a step cannot be counted, LookupError: not under a dispatch mode; the batch has 4 images '
        'here, `--batch-size` sets another'
    )


def contextual(path, **options):
    ends = {'student_module_io': 'output', 'teacher_module_path': 'layer', 'teacher_module_io': 'output'}
    kwargs = {'student_module_path': path, **ends, **options}
    term = {'criterion': {'key': 'TokenContextualLoss', 'kwargs': kwargs}, 'weight': 1.0}
    return Config(None, '', {'train': {'criterion': {'kwargs': {'sub_terms': {'context': term}}}}})


def test_context_maps_that_do_not_fit_are_known_before_anything_runs():
    probes = {'student': run_model('net', nn.Sequential(nn.Conv2d(3, 1, 1), nn.AvgPool2d(16)), (128, 128))}
    assert check_maps(contextual('1'), ('train',), probes, 32) == 32
    assert check_maps(contextual('student_model.0', student_tokens={'patch_size': 2}), ('train',), probes, 32) == 2
    told = '`context` has 16384 x 16384 numbers an image, about 8 GiB each; choose later'
    with pytest.raises(UnknownHereError, match=told):
        check_maps(contextual('0'), ('train',), probes, 32)
    assert check_maps(Config(None, '', {'train': {'criterion': {}}}), ('train',), probes, 32) == 32
