"""Whatever a model raises while it is built or tried is told with the model and the line or the size."""

import pytest
from check_yaml import QUICK
from tiny import CE, KD, stage, tiny_net, whole_yaml, write
from torchdistill.models.registry import register_model

from trg_torchdistill.cli.main import main
from trg_torchdistill.errors import TRGError

pytestmark = pytest.mark.slow


class OddError(Exception):
    """An exception class of the user's own."""


RAISED = {
    'AssertionError': (lambda: AssertionError('Input shape\nindivisible'), ', AssertionError: Input shape indivisible'),
    'IndexError': (lambda: [][1], ', IndexError: list index out of range'),
    'ZeroDivisionError': (lambda: 1 / 0, ', ZeroDivisionError: division by zero'),
    'KeyError': (lambda: {}['depth'], ", KeyError: 'depth'"),
    'KeyError with a sentence': (lambda: KeyError("no 'x' here"), ", KeyError: no 'x' here"),
    'OddError': (OddError, ', OddError: no message'),
    'StopIteration': (lambda: next(iter(())), ', StopIteration: no message'),
    'a long text': (lambda: RuntimeError('word ' * 1000), ', RuntimeError: ' + 79 * 'word ' + '...'),
    'TRGError': (lambda: TRGError('expected `width` to be even'), ': expected `width` to be even'),
}
COMMANDS = {
    'add': (2, ['-o', 'NEW', '--input-size', '8']),
    'check': (1, QUICK),
    'train': (2, ['--device', 'cpu']),
}


def _raise(name):
    error = RAISED[name][0]()
    raise error


@register_model
def refusing_net(name, when, **kwargs):
    if when == 'built':
        _raise(name)
    model = tiny_net(**kwargs)
    model.register_forward_pre_hook(lambda *_: _raise(name))
    return model


def error_of(command, name, when, folder, capsys):
    text = whole_yaml(folder, stage(1, CE + KD))
    kwargs = f"kwargs: {{width: 4, name: '{name}', when: '{when}'}}"
    text = text.replace("    key: 'tiny_net'", "    key: 'refusing_net'").replace(
        '    kwargs: {width: 4}', f'    {kwargs}'
    )
    code, words = COMMANDS[command]
    path = write(folder, text)
    assert main([command, path, *(str(folder / 'new.yaml') if word == 'NEW' else word for word in words)]) == code
    assert not (folder / 'new.yaml').exists()
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    return line


@pytest.mark.parametrize('name', RAISED)
@pytest.mark.parametrize('command', COMMANDS)
def test_a_model_that_cannot_be_built(command, name, tmp_path, capsys):
    line = error_of(command, name, 'built', tmp_path, capsys)
    assert line.startswith('error: `refusing_net` refused its arguments')
    assert f'{RAISED[name][1]}; change `models.student_model.kwargs` (line 12)' in line


@pytest.mark.parametrize('name', RAISED)
@pytest.mark.parametrize('command', ['add', 'check'])
def test_a_model_that_does_not_take_the_images(command, name, tmp_path, capsys):
    line = error_of(command, name, 'run', tmp_path, capsys)
    assert f'`refusing_net` refused a batch of shape [2, 3, 8, 8]{RAISED[name][1]}' in line


@pytest.mark.parametrize('name', [name for name in RAISED if not name.startswith(('KeyError', 'TRGError'))])
def test_a_model_that_fails_on_its_first_images(name, tmp_path, capsys):
    line = error_of('train', name, 'run', tmp_path, capsys)
    place = 'the student `TinyNet` failed on the images [1, 3, 8, 8] float32 of `datasets.val`'
    assert f'error: {place} (line 7){RAISED[name][1]}' in line
