"""What becomes of an exception at the border to the code of others."""

import pytest

from trg_torchdistill.errors import RunError, TRGError, explained, placed


@pytest.mark.parametrize('around', [explained, placed])
@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (IndexError(), 'IndexError: no message'),
        (AssertionError('two\n  lines'), 'AssertionError: two lines'),
        (KeyError('a'), "KeyError: 'a'"),
        (KeyError("no 'a' here"), "KeyError: no 'a' here"),
        (KeyError(3, 4), 'KeyError: (3, 4)'),
        (RuntimeError('word ' * 1000), f'RuntimeError: {"word " * 79}...'),
    ],
)
def test_foreign_errors_are_told_with_type_and_text(around, error, text):
    with pytest.raises(TRGError) as found, around('the model failed', 'change it'):
        raise error
    assert str(found.value) == f'the model failed, {text}; change it'
    assert found.value.__cause__ is error


def test_an_error_of_ours_passes_or_is_placed():
    with pytest.raises(RunError, match=r'^ours$'), explained('the model failed', 'change it'):
        raise RunError('ours')
    with pytest.raises(TRGError, match=r'^the model failed: ours; change it$'), placed('the model failed', 'change it'):
        raise TRGError('ours')


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit])
def test_an_exit_is_no_error(error):
    with pytest.raises(error), placed('the model failed'):
        raise error
