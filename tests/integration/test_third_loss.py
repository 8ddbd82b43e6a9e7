"""The example of docs/developing.md, a loss that no command knows, goes through all of them."""

import re
import sys
from pathlib import Path

import pytest
from host import BOTH_PROCESSES, HOOKED, trg_term
from tiny import KD, check, kinds, lines_of, stage, terms, train, whole_yaml, write
from torchdistill.losses.registry import MIDDLE_LEVEL_LOSS_DICT

from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.plot import pictures

IMPORTS = """
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchdistill.losses.registry import register_mid_level_loss

from trg_torchdistill._checks import check_positive
from trg_torchdistill.io import IoDict
from trg_torchdistill.losses import RelationLoss
from trg_torchdistill.losses.maps import ImageMaps
from trg_torchdistill.losses.relation import Terms
from trg_torchdistill.tokens import in_full_precision


"""
TERM = trg_term('layer2', 'layer2', 'power: 2.0', 'far', 'TokenDistanceLoss').replace('weight: 1.0', 'weight: 0.5')
TRAIN = stage(1, KD + TERM, BOTH_PROCESSES + HOOKED)
DEPENDENCY = ("  - name: 'tiny'\n", "  - name: 'tiny'\n  - name: 'distances'\n")


@pytest.fixture(autouse=True)
def _distances(tmp_path, monkeypatch):
    """The blocks of docs/developing.md as the module `distances`."""
    text = (Path(__file__).parents[2] / 'docs' / 'developing.md').read_text()
    loss, maps = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    loss = loss.replace('class TokenDistanceLoss', '@register_mid_level_loss\nclass TokenDistanceLoss')
    (tmp_path / 'distances.py').write_text(f'{IMPORTS}{loss}\n{maps}')
    monkeypatch.syspath_prepend(tmp_path)
    yield
    MIDDLE_LEVEL_LOSS_DICT.pop('TokenDistanceLoss', None)
    sys.modules.pop('distances', None)


def _written(folder):
    return write(folder, whole_yaml(folder, TRAIN).replace(*DEPENDENCY))


def test_check_has_its_term_its_share_and_its_line(tmp_path, capsys):
    code, report = check(tmp_path, capsys, TRAIN, change=DEPENDENCY)
    assert (code, kinds(report)) == (0, [])
    assert terms(report)['far']['weight'] == 0.5
    assert terms(report)['far']['share'] > 0
    assert report['stages'][0]['relations'] == [{'term': 'far', 'cells': 16, 'padding': 0.0, 'on_teacher_edges': {}}]
    assert main(['check', _written(tmp_path), '--input-size', '8', '--steps', '1']) == 0
    assert '  far: 16 tokens an image\n' in capsys.readouterr().out


def test_check_names_a_wrong_keyword_and_its_place(tmp_path, capsys):
    code, report = check(tmp_path, capsys, TRAIN.replace('power: 2.0', 'powr: 2.0'), change=DEPENDENCY)
    assert code == 1
    assert '`powr`; did you mean `power`?; change it under the `kwargs:` of `TokenDistanceLoss`' in report['error']


def test_train_keeps_its_mean(tmp_path, caplog):
    assert train(_written(tmp_path), '--seed', '0') == 0
    assert 'TokenDistanceLoss of `far`: distance ' in caplog.text
    [line] = lines_of(tmp_path)
    assert line['terms']['far'] == line['terms']['far.distance'] > 0


@pytest.mark.slow
def test_plot_draws_its_maps_under_their_name(tmp_path, capsys, monkeypatch):
    titles = []

    def spy(*words, original=pictures.draw_context):
        titles.append(words[5].name)
        return original(*words)

    monkeypatch.setattr('trg_torchdistill.cli.plot.command.draw_context', spy)
    config, out = _written(tmp_path), str(tmp_path / 'out')
    assert train(config, '--seed', '0') == 0
    words = ['plot', config, '-o', out, '--only', 'context_maps', 'token_graph', '--images', '0', '1']
    assert main([*words, '--term', 'far', '--format', 'png']) == 0
    assert titles == ['distance map']
    assert {file.name for file in Path(out).iterdir()} == {'context_maps.png', 'token_graph.png'}
    capsys.readouterr()
    assert main([*words, '--term', 'fr']) == 2
    assert '`TokenDistanceLoss` term of' in (said := capsys.readouterr().err)
    assert "one of ['far'], got 'fr'" in said
