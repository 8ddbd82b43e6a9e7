import subprocess
import sys
import types

import pytest

from trg_torchdistill.cli import main as module
from trg_torchdistill.cli.config import ConfigError
from trg_torchdistill.cli.main import main


@pytest.fixture
def command(monkeypatch):
    """A sub-command `fake`; the test sets what its `run` does."""
    fake = types.ModuleType('fake_command')
    fake.add_arguments = lambda parser: parser.add_argument('--option')
    monkeypatch.setitem(sys.modules, 'fake_command', fake)
    monkeypatch.setitem(module.COMMANDS, 'fake', ('fake_command', 'a fake'))
    return fake


@pytest.mark.parametrize(
    ('error', 'code', 'message'),
    [
        (ConfigError('wrong YAML'), 2, 'error: wrong YAML\n'),
        (ValueError('wrong value'), 2, 'error: wrong value\n'),
        (TypeError('wrong type'), 2, 'error: wrong type\n'),
        (ArithmeticError('not finite'), 1, 'error: not finite\n'),
        (OSError('disk full'), 1, 'error: disk full\n'),
        (KeyboardInterrupt(), 130, 'interrupted\n'),
    ],
)
def test_errors_become_one_message_and_a_code(error, code, message, command, capsys):
    def run(args):
        raise error

    command.run = run
    assert main(['fake']) == code
    assert capsys.readouterr().err == message


def test_a_defect_keeps_its_traceback(command):
    def run(args):
        raise RuntimeError('a defect')

    command.run = run
    with pytest.raises(RuntimeError, match='a defect'):
        main(['fake'])


def test_the_sub_commands_code_and_options_are_passed_on(command):
    command.run = lambda args: 7 if args.option == 'x' else 0
    assert main(['fake', '--option', 'x']) == 7
    assert main(['fake']) == 0


@pytest.mark.parametrize('words', [[], ['unknown'], ['train']])
def test_a_wrong_command_line(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert 'usage: trg-torchdistill' in capsys.readouterr().err


def test_help_of_train_has_the_example_trainers_flags(capsys):
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    text = capsys.readouterr().out
    for flag in ('--device', '--run_log', '--seed', '--start_epoch', '-disable_cudnn_benchmark', '-test_only'):
        assert flag in text
    for flag in ('-student_only', '-log_config', '-adjust_lr', '--run_dir', '--resume', '--overwrite', '--traceback'):
        assert flag in text


def test_the_module_runs():
    words = [sys.executable, '-m', 'trg_torchdistill', '--version']
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert result.stdout.startswith('trg-torchdistill ')
