"""Scripts that the documentation names and no other test runs."""

import contextlib
import runpy
import sys

import loss_table
import transformers
from documents import ROOT
from loss_table import EVERY


def run(monkeypatch, capsys, script, *words):
    """What a script prints."""
    monkeypatch.setattr(sys, 'argv', [script, *words])
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(ROOT / script), run_name='__main__')
    return capsys.readouterr().out.splitlines()


def test_the_table_of_errors_has_a_row_of_each_loss(monkeypatch, capsys):
    few = {name: EVERY[name] for name in ('contextual', 'contextual, batchmean')}
    monkeypatch.setattr(loss_table, 'EVERY', few)
    _, _, *rows = run(monkeypatch, capsys, 'tests/exactness.py', '--seeds', '1')
    assert len(rows) == len(few)
    for row in rows:
        name, *errors = row.strip('| ').split(' | ')
        assert name in few
        assert max(map(float, errors[:2])) < 1e-9
        assert max(map(float, errors[2:])) < 1e-3


def test_the_matrix_lists_every_version_for_each_interpreter_that_is_here(monkeypatch, capsys):
    names = [line.split()[0] for line in run(monkeypatch, capsys, 'tools/matrix.py', '--list')]
    versions = {name.partition('-')[2] for name in names}
    pythons = {name.partition('-')[0] for name in names}
    assert f'py3.{sys.version_info.minor}' in pythons
    assert sorted(names) == sorted(f'{python}-{version}' for python in pythons for version in versions)


def test_the_neighbours_of_special_tokens_are_counted(monkeypatch, capsys, tmp_path):
    folder = tmp_path / 'teacher'
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'b', 'c']
    folder.mkdir()
    (folder / 'vocabulary').write_text('\n'.join(words))
    (folder / 'test.csv').write_text(
        'text,label\n' + ''.join(f'{text},0\n' for text in ('a b', 'c', 'b a c', 'c c b a'))
    )
    transformers.BertTokenizer(str(folder / 'vocabulary')).save_pretrained(folder / 'teacher')
    sizes = {'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'intermediate_size': 8}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes))
    model.save_pretrained(folder / 'trained_teacher')
    head, _, *rows = run(monkeypatch, capsys, 'benchmarks/tasks/special_tokens.py', str(tmp_path))
    assert head == '| neighbours of | number | [CLS] | [SEP] | words |'
    assert [row.split(' | ')[:2] for row in rows] == [['| [CLS]', '4'], ['| [SEP]', '4'], ['| words', '10']]
