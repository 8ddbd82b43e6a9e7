"""A file of weights in any of the usual wrappings is refused with a line that makes one that torchdistill reads."""

import shlex

import pytest
import torch
from torch import nn
from torchdistill.common.main_util import load_ckpt

from trg_torchdistill.cli.probe.weights import load_weights, read_checkpoint
from trg_torchdistill.errors import TRGError


def build():
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 4)))


def prefixed(prefix, weights):
    return {f'{prefix}{name}': value for name, value in weights.items()}


OPTIMIZER = {'state': {0: {'momentum_buffer': torch.ones(2)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]}
# name: (what a file makes of the weights, what the message says of it)
WRAPPINGS = {
    'data parallel': (lambda w: prefixed('module.', w), 'named with `module.` in front (DataParallel)'),
    'compiled': (lambda w: prefixed('_orig_mod.', w), 'named with `_orig_mod.` in front (torch.compile)'),
    'both': (lambda w: prefixed('module._orig_mod.', w), 'named with `module._orig_mod.` in front'),
    'state_dict': (lambda w: {'epoch': 3, 'state_dict': w, 'optimizer': OPTIMIZER}, 'under `state_dict`'),
    'name beside': (lambda w: {'model': 'resnet18', 'state_dict': w}, 'under `state_dict`'),
    'net': (lambda w: {'net': w, 'acc': 0.9}, 'under `net`'),
    'model_state_dict': (lambda w: {'model_state_dict': w}, 'under `model_state_dict`'),
    'lightning': (lambda w: {'state_dict': prefixed('model.', w)}, 'under `state_dict`, named with `model.` in front'),
    'model': (lambda w: {'model': prefixed('module.', w)}, 'under `model`, named with `module.` in front'),
    'moco': (
        lambda w: {'state_dict': prefixed('module.encoder_q.', w) | prefixed('module.encoder_k.', w)},
        'under `state_dict`, named with `module.encoder_q.` in front',
    ),
    'ema': (lambda w: {'ema': {'module': w}, 'updates': 3}, 'under `ema.module`'),
    'host at HEAD': (
        lambda w: {'model': prefixed('student_model.', w) | {'projectors.p.weight': torch.ones(2, 2)}},
        'under `model`, named with `student_model.` in front',
    ),
    'parallel features': (
        lambda w: {name.replace('2.0', '2.module.0'): value for name, value in w.items()},
        'named with parts of wrappers',
    ),
    'state of a run': (lambda w: {'modules': {'student': w}, 'optimizer': OPTIMIZER}, 'under `modules.student`'),
    'old BatchNorm': (
        lambda w: prefixed('module.', {name: value for name, value in w.items() if 'num_batches' not in name}),
        'named with `module.` in front',
    ),
}


def refusal(path):
    with pytest.raises(TRGError) as error:
        load_weights(build(), read_checkpoint(str(path), 'it'), str(path), 'it')
    return str(error.value)


def convert(message):
    """Does what the last line of a message does, in this process, which is quicker."""
    command, option, program = shlex.split(message[message.index('python -c') :])
    assert (command, option) == ('python', '-c')
    exec(program, {})


@pytest.mark.parametrize('name', WRAPPINGS)
def test_the_line_converts_the_file(name, tmp_path):
    wrap, told = WRAPPINGS[name]
    weights = {key: torch.randn_like(value.float()) for key, value in build().state_dict().items()}
    path = tmp_path / "a teacher's.pth"
    torch.save(wrap(weights), path)
    message = refusal(path)
    assert f'its weights are {told}' in message
    convert(message)
    model = build()
    load_ckpt(str(tmp_path / "a teacher's-weights.pt"), model=model, strict=True)
    found = model.state_dict()
    assert all(
        torch.equal(found[name], value.to(found[name].dtype)) for name, value in weights.items() if 'num' not in name
    )


def test_equal_weights_in_two_places_are_told(tmp_path):
    weights = build().state_dict()
    torch.save({'state_dict': weights, 'state_dict_ema': weights}, tmp_path / 'x.pt')
    message = refusal(tmp_path / 'x.pt')
    assert 'its weights are under `state_dict` (others with its keys: under `state_dict_ema`)' in message


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda w: w | {'2.0.weight': torch.ones(10, 2)}, '`2.0.weight` is [10, 2], not [4, 2]; name a file of this'),
        (lambda w: {k: v for k, v in w.items() if k[0] != '0'}, 'missing 2 keys: `0.weight`, `0.bias`; name'),
        (lambda w: w | {'3.bias': torch.ones(1)}, 'unexpected 1 key: `3.bias`'),
        (
            lambda w: {'state_dict': prefixed('module.', w | {'x': torch.ones(1), '2.0.bias': torch.ones(9)})},
            'of its weights under `state_dict`, named with `module.` in front (DataParallel), unexpected 1 key: `x`; '
            '`2.0.bias` is [9], not [4]',
        ),
        (lambda w: {'a': torch.ones(1), 'b': 2}, 'missing 9 keys: `0.weight`, `0.bias`, `1.weight`, ...; unexpected 2'),
        (lambda w: {'epoch': 3}, 'it holds no weights, but 1 key: `epoch`'),
    ],
)
def test_weights_of_another_model(change, told, tmp_path):
    torch.save(change(build().state_dict()), tmp_path / 'x.pt')
    message = refusal(tmp_path / 'x.pt')
    assert told in message
    assert 'python -c' not in message


class Anything:
    """An object of the author's code, beside the weights or around them."""


@pytest.mark.parametrize('place', ['model', 'state_dict', 'module'])
def test_the_line_for_a_file_with_objects(place, tmp_path):
    model = build()
    path = tmp_path / 'x.pt'
    torch.save(model if place == 'module' else {place: model.state_dict(), 'args': Anything()}, path)
    with pytest.raises(TRGError, match='not only tensors and plain values') as error:
        read_checkpoint(str(path), 'it')
    convert(str(error.value))
    loaded = build()
    load_ckpt(str(tmp_path / 'x-weights.pt'), model=loaded, strict=True)
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
