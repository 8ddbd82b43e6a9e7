"""The text edit: it holds what was wanted, and every byte that did not have to change stays."""

import difflib

import pytest

from trg_torchdistill.cli.recipe.deferred import Deferred, parse_deferred
from trg_torchdistill.cli.recipe.edit import EditError, edit_text, list_changes, unshared
from trg_torchdistill.cli.recipe.render import Inline, entry, inline

TEXT = """\
# header

datasets:
  &train fake/train: !import_call   # a tag on a key with an anchor
    _name: &name 'fake'
    key: "no.such.Data"
    init: {kwargs: {root: !join ['~/', *name]}}
train:
  stage1:
    num_epochs:   3
    teacher: &teacher
      forward_hook:
        input: []
        output: ['avgpool']   # why
      wrapper: 'DataParallel'

    student:
      forward_hook: &hook {input: [ ], output: [a,'b' ,]}
      wrapper:
        key: 'DDP'   # gone
        kwargs: {x: 1}
      last: ~
  stage2:
    teacher: *teacher
    student:
      <<: *teacher
      forward_hook: *hook
    list:
    - 1
    -   two: 2

    # an end
test:
"""


def edited(change, text=TEXT):
    """Edits, checks that the text holds what was wanted, and returns what went (-) and came (+)."""
    tree = unshared(parse_deferred(text))
    change(tree)
    new = edit_text(text, tree)
    assert parse_deferred(new) == tree
    return [line for line in difflib.ndiff(text.splitlines(), new.splitlines()) if line[0] in '+-']


def test_nothing_wanted_nothing_changed():
    assert edit_text(TEXT, parse_deferred(TEXT)) == TEXT


def test_a_key_comes_behind_the_last_value_and_not_behind_blank_lines_or_comments():
    def change(tree):
        tree['train']['stage1']['teacher']['new'] = {'a': 1, 'b': ['x']}
        tree['train']['stage2']['teacher']['new'] = {'a': 1, 'b': ['x']}
        tree['train']['stage2']['student']['new'] = {'a': 1, 'b': ['x']}
        tree['train']['stage2']['list'].append({'c': None})

    assert edited(change) == ['+       new:', '+         a: 1', "+         b: ['x']", '+     - c:']


def test_a_key_keeps_its_place_among_the_wanted_keys():
    def change(tree):
        items = list(tree.items())
        tree.clear()
        tree.update({'dependencies': [{'name': 'trg'}], **dict(items)})
        stage = tree['train']['stage1']
        tree['train']['stage1'] = {'num_epochs': 3, 'pre': 'x', **{k: v for k, v in stage.items() if k != 'num_epochs'}}

    tree = unshared(parse_deferred(TEXT))
    change(tree)
    new = edit_text(TEXT, tree).splitlines()
    assert new[:6] == ['# header', '', 'dependencies:', "  - name: 'trg'", '', 'datasets:']
    assert new[new.index('    num_epochs:   3') + 1] == "    pre: 'x'"


def test_an_empty_mapping_becomes_a_block_and_an_anchored_one_grows():
    text = 'terms: {}   # none yet\nhook: &hook {}\n'

    def change(tree):
        tree['terms'].update(trg={'weight': 1.0, 'criterion': {'key': 'TRGLoss'}}, contextual={'weight': 2.0})
        tree['hook'].update(input=[], output=['layer4'])

    lines = edited(change, text)
    assert '- terms: {}   # none yet' in lines
    assert '+   contextual:' in lines
    assert "+ hook: &hook {input: [], output: ['layer4'], }" in lines


def test_flow_collections_grow_on_their_line():
    def change(tree):
        hook = tree['train']['stage1']['student']['forward_hook']
        hook['input'].append('c')
        hook['output'].append("d'e")
        hook['more'] = None
        tree['train']['stage2']['student']['forward_hook'] = unshared(hook)

    assert [line for line in edited(change) if line[0] == '+'] == [
        "+       forward_hook: &hook {input: [ 'c'], output: [a,'b', 'd''e' ,], more: null}"
    ]


def test_an_alias_that_must_differ_is_written_out_and_the_anchor_stays():
    def change(tree):
        tree['train']['stage2']['teacher']['forward_hook']['output'].append('layer4')

    assert edited(change) == [
        '-     teacher: *teacher',
        '+     teacher:',
        '+       <<: *teacher',
        '+       forward_hook:',
        '+         input: []',
        "+         output: ['avgpool', 'layer4']",
    ]


def test_an_anchored_block_that_changes_leaves_its_other_users_as_they_were():
    def change(tree):
        tree['train']['stage1']['teacher']['wrapper'] = None
        tree['train']['stage1']['student']['forward_hook']['output'].append('c')

    assert edited(change) == [
        "-       wrapper: 'DataParallel'",
        '+       wrapper:',
        "-       forward_hook: &hook {input: [ ], output: [a,'b' ,]}",
        "+       forward_hook: &hook {input: [ ], output: [a,'b', 'c' ,]}",
        '-     teacher: *teacher',
        '+     teacher:',
        '+       <<: *teacher',
        "+       wrapper: 'DataParallel'",
        '-       forward_hook: *hook',
        '+       forward_hook:',
        '+         <<: *hook',
        "+         output: ['a', 'b']",
        "+       wrapper: 'DataParallel'",
    ]


def test_an_alias_whose_anchor_goes_is_written_out():
    text = "a: &x {b: 1}\nc: *x\nd: &y 'text'\ne: [*y, 2]\n"

    def change(tree):
        tree['a'] = None
        tree['d'] = 3

    assert edited(change, text) == [
        '- a: &x {b: 1}',
        '- c: *x',
        "- d: &y 'text'",
        '- e: [*y, 2]',
        '+ a:',
        '+ c:',
        '+   b: 1',
        '+ d: 3',
        "+ e: ['text', 2]",
    ]


def test_a_value_is_replaced_in_its_place():
    def change(tree):
        student = tree['train']['stage1']['student']
        student['wrapper'] = None
        student['last'] = {'a': 1e-05}

    assert edited(change) == [
        "-         key: 'DDP'   # gone",
        '-         kwargs: {x: 1}',
        '-       last: ~',
        '+       last:',
        '+         a: 1.0e-05',
    ]


def test_a_null_gets_a_value_before_its_comment():
    assert edit_text('a:   # note\nb:\n  # c\n  1\n', {'a': 'x', 'b': 2}) == "a: 'x'   # note\nb:\n  # c\n  2\n"


def test_windows_line_ends_and_a_missing_last_one_are_kept_in_order():
    assert edit_text('a:\r\n  b: 1\r\n', {'a': {'b': 1, 'c': 2}}) == 'a:\r\n  b: 1\r\n  c: 2\r\n'
    assert edit_text('a: 1', {'a': 1, 'b': 2}) == 'a: 1\nb: 2\n'


@pytest.mark.parametrize(
    ('text', 'tree'),
    [
        ('a: 1\nb: 2\n', {'a': 1}),
        ('x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n', {'x': {'a': 1, 'c': 3}, 'y': {'a': 1, 'b': 2}}),
        ("a: &a 'x'\nb: !join [*a, 'y']\n", {'a': 'z', 'b': 'xy'}),
    ],
)
def test_what_cannot_be_written_is_an_error_and_never_another_text(text, tree):
    with pytest.raises(EditError):
        edit_text(text, tree)


def test_changes_are_listed_by_what_happened():
    before = {'a': 1, 'b': [1, 2], 'c': None, 'd': {'e': 1}, 'f': 0}
    after = {'a': 2, 'b': [1, 2, 3], 'c': 4, 'd': {'e': 1, 'g': {}}}
    assert list_changes(before, after) == (['b.2', 'c', 'd.g'], ['a'], ['f'])
    assert list_changes({'a': [1, {'b': True}]}, {'a': [1, {'b': 1}]}) == ([], ['a.1.b'], [])


@pytest.mark.parametrize(
    'value',
    [
        "it's",
        'a\nb\\"',
        '',
        'null',
        1e-07,
        1e30,
        0.5,
        float('inf'),
        True,
        None,
        [1, [2, {}]],
        {'a b': {'1': -1}},
        'é: #',
    ],
)
def test_rendered_values_are_read_back(value):
    lines = '\n'.join(entry('key', value, 2))
    assert parse_deferred(lines) == {'key': value}
    assert parse_deferred(f'[{inline(value)}]') == [value]


def test_tags_and_inline_mappings_are_rendered():
    value = {'a': Deferred('!import_get', {'key': 'x.Y'}), 'b': Inline(c=1)}
    assert entry('k', value, 0) == ['k:', "  a: !import_get {key: 'x.Y'}", '  b: {c: 1}']
    assert parse_deferred('\n'.join(entry('k', value, 0))) == {'k': value}
