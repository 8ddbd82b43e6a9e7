"""Each warning of `trg-torchdistill check` is given where it belongs and nowhere else; shares against a hand count."""

import copy
import json
import math
import textwrap
from pathlib import Path

import pytest
import torch
from host import TinyCnn, box_from, full_method, train_yaml
from tiny import CE, KD, SGD, SIDES, TRG, TRG_SIDES, check, kinds, stage, whole_yaml, write
from torch.nn import functional

from trg_torchdistill.cli.check.cost import step_cost
from trg_torchdistill.cli.check.steps import batches_of, first_step
from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.host import Box

EVAL = "pre_epoch_process: 'pre_epoch_process_with_trg'\n"
CONFIG = Config(Path('config.yaml'), '', {})  # names lines in errors, of which there are none
PLAIN = stage(3, CE + KD, sides=EVAL + SIDES)
FULL = stage(3, CE + TRG, sides=TRG_SIDES)
RAW = 'normalize_tokens: False, sigma: 0.0001, num_neighbors: 3'
QUIET_KD = KD.replace('weight: 1.0', 'weight: 1.0e-7')
MODULE_WISE = SGD.replace('optimizer: {', "optimizer: {module_wise_configs: [{module: 'student_model'}], ")

FROZEN = "student:\n    frozen_modules: ['student_model.layer1', 'student_model.layer2']\n"
NO_GRADIENT = (
    '`trg`, `context` have no gradient on the student: its `student_model.layer2` and all before it are frozen'
)
PROJECTORS = stage(3, CE + TRG, sides=TRG_SIDES, optimizer=MODULE_WISE)
STUDENT = "    key: '{}'\n    kwargs: {{width: 4}}"
MIRRORED = STUDENT.format('tiny_net'), STUDENT.format('tiny_column_net')
IN_WINDOWS = 'the tokens of `student_model.layer2` of the student are in windows or in another order'
NO_CHANGE = ('', '')

# kind: (train, what is replaced in the YAML and by what, the same without the warning, part of the text)
WARNINGS = {
    'teacher_in_train_mode': (
        stage(3, CE + KD),
        NO_CHANGE,
        PLAIN,
        'BatchNorm layers change their statistics and 1 dro',
    ),
    'teacher_is_trained': (PLAIN, (', requires_grad: False', ''), PLAIN, '10 parameters of the teacher'),
    'no_logit_term': (stage(3, TRG, sides=TRG_SIDES), NO_CHANGE, FULL, 'no term trains `student_model.fc`'),
    'untrained_projectors': (PROJECTORS, NO_CHANGE, FULL, "'projectors'"),
    'outer_wrapper': (FULL, ('student:\n', "student:\n    wrapper: 'DataParallel'\n"), FULL, 'refused on GPUs'),
    'schedule_of_one_epoch': (FULL, ('num_epochs: 3', 'num_epochs: 1'), FULL, 'train.num_epochs`'),
    'too_many_neighbors': (FULL, ('num_neighbors: 3', 'num_neighbors: 32'), FULL, 'it is clipped to 31'),
    'silent_local': (FULL, ('num_neighbors: 3', RAW), FULL, 'or `sigma: '),
    'silent_term': (stage(3, CE + QUIET_KD, sides=EVAL + SIDES), NO_CHANGE, PLAIN, '`kd` is silent'),
    'frozen_layer': (FULL, ('student:\n', FROZEN), FULL, NO_GRADIENT),
    'unread_key': (PLAIN, ('log_freq', 'log_frequency'), PLAIN, 'did you mean `log_freq`'),
    'repeated_key': (
        PLAIN,
        ('requires_grad: False', 'requires_grad: True, requires_grad: False'),
        PLAIN,
        'stands 2 times',
    ),
    'teacher_weights': (PLAIN, ('src_ckpt: }', "src_ckpt: 'no/such.pt'}"), PLAIN, 'refuses to start without it'),
    'tokens_out_of_order': (FULL, MIRRORED, FULL, IN_WINDOWS),
    'student_weights': (PLAIN, ('src_ckpt:\n', "src_ckpt: 'no/such.pt'\n"), PLAIN, 'refuses to start without it'),
}


@pytest.mark.parametrize('kind', WARNINGS)
def test_each_warning_is_given_where_it_belongs(kind, tmp_path, capsys):
    train, change, without, part = WARNINGS[kind]
    code, report = check(tmp_path, capsys, train, change=change)
    assert code == 0, report['error']
    [warning, *more] = [warning for warning in report['warnings'] if warning['kind'] == kind]
    assert part in warning['text']
    assert more == []
    assert f'(line {warning["line"]})' in warning['text']
    assert kind not in kinds(check(tmp_path, capsys, without)[1])


@pytest.mark.parametrize(('size', 'expected'), [('2', ['one_token']), ('8', [])])
def test_a_single_token_is_told_and_not_called_silent(size, expected, tmp_path, capsys):
    code, report = check(tmp_path, capsys, FULL, '--input-size', size)
    assert code == 0, report['error']
    assert [kind for kind in kinds(report) if kind in ('one_token', 'silent_term')] == expected


@pytest.mark.parametrize(
    ('key', 'words', 'warned'),
    [
        pytest.param('tiny.Blobs', (), True, id='a guess'),
        pytest.param('tiny.Blobs', ('--input-size', '32'), False, id='told on the command line'),
        pytest.param('torchvision.datasets.CIFAR10', (), False, id='a known data set'),
    ],
)
def test_a_guessed_size_is_told_with_what_hangs_on_it(key, words, warned, tmp_path, capsys):
    text = whole_yaml(tmp_path, stage(3, CE + TRG.partition('context:')[0], sides=TRG_SIDES))
    path = write(tmp_path, text.replace("'tiny.Blobs', init: {kwargs: {size: 24}}", f"'{key}', init: {{args: [4]}}"))
    assert main(['check', path, '--json', '--steps', '1', *words]) == 0
    found = {warning['kind']: warning for warning in json.loads(capsys.readouterr().out)['warnings']}
    assert ('guessed_size' in found) == warned
    if warned:
        text = found['guessed_size']['text']
        assert 'taken to be 224 x 224, a guess: the YAML does not tell their size' in text
        assert '112x112 tokens an image then, 16x16 tokens at 32 x 32 and 32x32 tokens at 64 x 64' in text
        assert f'`datasets` (line {found["guessed_size"]["line"]})' in text


@pytest.mark.parametrize(('scale', 'saturated'), [(100.0, True), (1.0, False)])
def test_a_saturated_context_map(scale, saturated, tmp_path, capsys, monkeypatch):
    forward = torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, 'forward', lambda self, x: scale * forward(self, x))
    code, report = check(tmp_path, capsys, FULL)
    assert code == 0
    assert ('saturated_context' in kinds(report)) == saturated


def test_gradient_shares_against_a_hand_computation(tmp_path):
    teacher, student = TinyCnn(12), TinyCnn(8)
    copies = copy.deepcopy((teacher, student))
    box = box_from(tmp_path, train_yaml(textwrap.dedent(KD), teacher='', student=''), teacher, student)
    box.pre_epoch_process(epoch=0)
    [batch] = batches_of(CLASSIFICATION, Box(box), 1)
    first = first_step(CONFIG, Box(box), student, batch, 8)

    images, labels, _ = batch
    with torch.no_grad():
        targets = copies[0](images)
    parameters = list(copies[1].parameters())
    logits = copies[1](images)
    ce = functional.cross_entropy(logits, labels)
    soft = functional.kl_div((logits / 4).log_softmax(1), (targets / 4).softmax(1), reduction='batchmean')
    kd = 0.5 * ce + 0.5 * 16 * soft
    norms = []
    for loss in (ce, kd):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
    assert [term.name for term in first.terms] == ['ce', 'kd']
    for term, value, norm in zip(first.terms, (ce, kd), norms, strict=True):
        assert math.isclose(term.value, value.item(), rel_tol=1e-4)
        assert math.isclose(term.gradient_norm, norm, rel_tol=1e-3)
        assert math.isclose(term.share, norm / sum(norms), rel_tol=1e-3)


def test_steps_without_trg_leave_the_box_as_it_was(tmp_path):
    box = box_from(tmp_path, full_method())
    box.pre_epoch_process(epoch=0)
    terms, loss = dict(box.criterion.term_dict), box.criterion.term_dict['trg'][0]
    calls = []
    loss.register_forward_hook(lambda *args: calls.append(1))
    cost = step_cost(Box(box), batches_of(CLASSIFICATION, Box(box), 1), 2)
    assert (len(calls), cost.steps) == (3, 2)
    assert cost.without_trg > 0
    assert box.criterion.term_dict == terms
    assert 'secondary_forward' not in vars(box.student_model)
