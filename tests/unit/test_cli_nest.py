"""A block moves one level deeper in the text as it is written, and nothing else changes."""

import pytest

from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.recipe.edit import EditError
from trg_torchdistill.cli.recipe.nest import nest

BLOCK = """\
train:
  student:
    wrapper:   # before
      # inside
      key: 'SRD'   # mine

      kwargs:
        width: &width 12
        more: >
          folded
          text
    last: *width
other: [1]
"""
NESTED = """\
train:
  student:
    wrapper:   # before
      # inside
      key: 'TRG'
      kwargs:
        inner:
          key: 'SRD'   # mine

          kwargs:
            width: &width 12
            more: >
              folded
              text
    last: *width
other: [1]
"""
PATH = ('train', 'student', 'wrapper')


@pytest.mark.parametrize('newline', ['\n', '\r\n'])
def test_a_block_keeps_its_comments_its_anchors_and_its_lines(newline):
    text, wanted = (each.replace('\n', newline) for each in (BLOCK, NESTED))
    assert nest(text, PATH, 'TRG', 'inner') == wanted
    assert nest(text.removesuffix(newline), PATH, 'TRG', 'inner').rstrip() == wanted.rstrip()


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ("{key: 'SRD', kwargs: {}}  # one", "{key: 'TRG', kwargs: {inner: {key: 'SRD', kwargs: {}}}}  # one"),
        ('*shared', "{key: 'TRG', kwargs: {inner: *shared}}"),
        ('&own {key: a}', "{key: 'TRG', kwargs: {inner: &own {key: a}}}"),
        ('&own\n      key: a', "\n      key: 'TRG'\n      kwargs:\n        inner: &own\n          key: a"),
    ],
    ids=['flow', 'alias', 'anchored flow', 'anchored block'],
)
def test_other_ways_to_write_it(before, after):
    text = f'shared: &shared {{key: b}}\ntrain:\n  student:\n    wrapper: {before}\n    last: 1\n'
    changed = nest(text, PATH, 'TRG', 'inner')
    assert changed == text.replace(f' {before}', after if after[0] == '\n' else f' {after}')


@pytest.mark.parametrize('student', ['*shared', '{<<: *shared}'])
def test_a_block_that_is_written_elsewhere_is_refused(student):
    text = f'shared: &shared {{wrapper: {{key: b}}}}\ntrain:\n  student: {student}\n'
    assert parse_deferred(text)['train']['student']['wrapper'] == {'key': 'b'}
    with pytest.raises(EditError, match=r'`train\.student\.wrapper` is written elsewhere, under an alias'):
        nest(text, PATH, 'TRG', 'inner')
