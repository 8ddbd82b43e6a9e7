import subprocess
import sys
import types

import pytest

import trg_torchdistill_cli
from trg_torchdistill.cli.main import main
from trg_torchdistill.errors import RunError, TRGError


@pytest.fixture
def command(monkeypatch):
    """A sub-command `fake`; the test sets what its `run` does."""
    fake = types.ModuleType('fake_command')
    fake.add_arguments = lambda parser: parser.add_argument('--option')
    monkeypatch.setitem(sys.modules, 'trg_torchdistill.cli.fake.command', fake)
    monkeypatch.setitem(trg_torchdistill_cli.COMMANDS, 'fake', 'a fake')
    return fake


@pytest.mark.parametrize(
    ('error', 'code', 'message'),
    [
        (TRGError('wrong YAML'), 2, 'error: wrong YAML\n'),
        (RunError('disk full'), 1, 'error: disk full\n'),
        (KeyboardInterrupt(), 130, 'interrupted\n'),
    ],
)
def test_errors_become_one_message_and_a_code(error, code, message, command, capsys):
    def run(args):
        raise error

    command.run = run
    assert main(['fake']) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize('error', [RuntimeError, TypeError, ValueError, OSError])
def test_a_defect_of_ours_is_called_one_and_keeps_its_traceback(error, command, capsys):
    def run(args):
        raise error('a defect')

    command.run = run
    assert main(['fake']) == 1
    text = capsys.readouterr().err
    assert 'in run\n' in text
    assert text.endswith(
        f'error: {error.__name__}: a defect; this is a fault of trg_torchdistill, not of your YAML: '
        'please report it with the lines above\n'
    )


@pytest.mark.parametrize('start', [main, trg_torchdistill_cli.main])
def test_the_sub_commands_code_and_options_are_passed_on(start, command):
    command.run = lambda args: 7 if args.option == 'x' else 0
    assert start(['fake', '--option', 'x']) == 7
    assert start(['fake']) == 0


@pytest.mark.parametrize('words', [[], ['unknown'], ['train']])
@pytest.mark.parametrize('start', [main, trg_torchdistill_cli.main])
def test_a_wrong_command_line(start, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        start(words)
    assert stopped.value.code == 2
    assert 'usage: trg-torchdistill' in capsys.readouterr().err


def test_help_of_train_has_the_example_trainers_flags(capsys):
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    flags = '--device --run_log --seed --start_epoch -disable_cudnn_benchmark -test_only -student_only -log_config '
    flags += '-adjust_lr --run_dir --resume --overwrite --traceback'
    text = capsys.readouterr().out
    assert [flag for flag in flags.split() if flag not in text] == []


@pytest.mark.parametrize('word', ['--help', '--version', 'unknown', ''])
def test_what_needs_no_torch_is_answered_without_it(word, capsys):
    """In a process of its own, in which torch cannot be imported; the answer is that of the package."""
    code = "import sys; sys.modules['torch'] = None; import trg_torchdistill_cli as cli; cli.main(sys.argv[1:])"
    answer = subprocess.run([sys.executable, '-c', code, *word.split()], capture_output=True, text=True)
    with pytest.raises(SystemExit) as stopped:
        main(word.split())
    assert (answer.returncode, (answer.stdout, answer.stderr)) == (stopped.value.code, capsys.readouterr())
