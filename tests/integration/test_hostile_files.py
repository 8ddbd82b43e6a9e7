"""Damaged, foreign and malicious files as anything that a run reads: refused with one message, unread and unchanged."""

import argparse
import os
import re

import pytest
import tiny
import torch
import yaml
from tiny import CE, KD, TRG, TRG_SIDES, comparable, last_state, stage, train, whole_yaml, write
from torchdistill.common.main_util import save_ckpt
from torchdistill.optim.registry import get_optimizer, get_scheduler

from trg_torchdistill.cli.main import main
from trg_torchdistill.files import UnreadableError, read_saved

pytestmark = pytest.mark.slow

ran = []


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (_run_code, ())


def _run_code():
    ran.append(True)
    return {}


def _whole():
    return {'model': tiny.tiny_net().state_dict(), 'optimizer': {}}


def _truncated(path):
    torch.save(_whole(), path)
    os.truncate(path, path.stat().st_size // 2)


CONTENTS = {
    'empty': (lambda path: path.write_bytes(b''), 'EOFError on reading it'),
    'text': (lambda path: path.write_text('hello'), 'damaged or no file of `torch.save`, '),
    'truncated': (_truncated, 'Error on reading it'),
    'foreign': (lambda path: torch.save([1], path), 'list'),
    'module': (lambda path: torch.save(tiny.tiny_net(), path), 'it holds `tiny.TinyNet`, not only tensors and plain'),
    'malicious': (lambda path: torch.save(_whole() | {'args': Malicious()}, path), '_run_code`, not only tensors'),
    'malicious, old format': (
        lambda path: torch.save({'model': Malicious()}, path, _use_new_zipfile_serialization=False),
        '_run_code`, not only tensors',
    ),
}
PROJECTOR = "projector_ckpt: 'FILE', projectors: {p:"
STAGE_SIDE = "{forward_proc: 'forward_batch_only', src_ckpt: 'FILE'"
ROLES = {  # what in the YAML names the file, what the message names, and further words of the command line
    'teacher': ('width: 6}, src_ckpt:', "width: 6}, src_ckpt: 'FILE'", 'src_ckpt`', ()),
    'student': ('width: 4}\n    src_ckpt:', "width: 4}\n    src_ckpt: 'FILE'", 'src_ckpt`', ()),
    'teacher of a stage': ("teacher: {forward_proc: 'forward_batch_only'", f'teacher: {STAGE_SIDE}', 'src_ckpt`', ()),
    'student of a stage': ("student: {forward_proc: 'forward_batch_only'", f'student: {STAGE_SIDE}', 'src_ckpt`', ()),
    'projections': ('projectors: {p:', PROJECTOR, '`projector_ckpt`', ()),
    'weights to test': ("student.pt'", "FILE'", 'dst_ckpt`', ('-test_only', '-student_only')),
    'state': ('', '', '/last.pt to be a training state', ('--resume', '--run_dir', 'FOLDER')),
}


def yaml_for(role, folder, path):
    found, replacement, _, _ = ROLES[role]
    terms = stage(1, CE + KD + TRG, sides=TRG_SIDES) if role == 'projections' else stage(1, CE + KD)
    text = whole_yaml(folder, terms)
    assert found in text
    if role == 'weights to test':
        return text.replace(str(folder / 'student.pt'), str(path))
    return text.replace(found, replacement.replace('FILE', str(path)), 1)


@pytest.mark.parametrize('content', CONTENTS)
@pytest.mark.parametrize('role', ROLES)
def test_a_file_that_is_no_weights_is_refused_unread_and_unchanged(role, content, tmp_path, capsys):
    make, reason = CONTENTS[content]
    path = tmp_path / 'last.pt'
    make(path)
    before = path.read_bytes()
    _, _, named, words = ROLES[role]
    words = [word.replace('FOLDER', str(tmp_path)) for word in words]
    ran.clear()
    assert train(write(tmp_path, yaml_for(role, tmp_path, path)), *words) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: expected')
    assert named in err
    assert str(path) in err
    if (role, content) != ('state', 'foreign'):
        assert reason in err
    assert len(err.splitlines()) == 1
    assert ran == []
    assert path.read_bytes() == before


@pytest.mark.parametrize('value', ['5', '[a]', 'true'])
@pytest.mark.parametrize('role', ['teacher', 'student', 'student of a stage'])
def test_a_path_that_is_no_text_is_refused(role, value, tmp_path, capsys):
    text = yaml_for(role, tmp_path, 'FILE').replace("'FILE'", value)
    assert train(write(tmp_path, text)) == 2
    assert re.search(r'src_ckpt` \(line \d+\) to be a path or an address, got ', capsys.readouterr().err)


def test_the_malicious_file_is_one(tmp_path):
    CONTENTS['malicious'][0](tmp_path / 'file.pt')
    ran.clear()
    torch.load(tmp_path / 'file.pt', weights_only=False)
    assert ran == [True]


@pytest.mark.parametrize('role', ['teacher', 'student'])
def test_check_refuses_a_malicious_file_too(role, tmp_path, capsys):
    path = tmp_path / 'last.pt'
    CONTENTS['malicious'][0](path)
    ran.clear()
    assert main(['check', write(tmp_path, yaml_for(role, tmp_path, path))]) != 0
    out, err = capsys.readouterr()
    assert '_run_code`, not only tensors' in out + err
    assert ran == []


def test_weights_behind_an_address_are_read_and_a_malicious_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    cached = tmp_path / 'checkpoints' / 'cached.pt'
    cached.parent.mkdir()
    torch.save({'a': torch.ones(2)}, cached)
    assert torch.equal(read_saved('https://example.com/cached.pt')['a'], torch.ones(2))
    CONTENTS['malicious'][0](cached)
    ran.clear()
    with pytest.raises(UnreadableError, match='_run_code'):
        read_saved('https://example.com/cached.pt')
    assert ran == []


SCHEDULERS = {
    'none': None,
    'MultiStepLR': "{key: 'MultiStepLR', kwargs: {milestones: [1, 3]}}",
    'CosineAnnealingLR': "{key: 'CosineAnnealingLR', kwargs: {T_max: 5}}",
    'OneCycleLR': "{key: 'OneCycleLR', kwargs: {max_lr: 0.1, total_steps: 20}}",
    'ReduceLROnPlateau': "{key: 'ReduceLROnPlateau', kwargs: {mode: 'max'}}",
    'LinearLR': "{key: 'LinearLR', kwargs: {total_iters: 5}}",
}


@pytest.mark.parametrize('name', SCHEDULERS)
def test_a_checkpoint_of_the_example_trainer_goes_on(name, tmp_path):
    """Its file holds an `argparse.Namespace` beside the states; the host itself writes it here, as its trainer does."""
    scheduler = '' if name == 'none' else f'scheduler: {SCHEDULERS[name]}\n'
    config = write(tmp_path, whole_yaml(tmp_path, stage(1, CE + KD, more=scheduler)))
    assert train(config, '--seed', '3') == 0
    student, optimizer, rates = _trained_by_the_host(name)
    args = argparse.Namespace(config='a.yaml', device='cpu', seed=None, start_epoch=0, test_only=False, world_size=1)
    save_ckpt(student, optimizer, rates, 30.0, args, str(tmp_path / 'host.pt'))
    text = (tmp_path / 'config.yaml').read_text().replace('{width: 4}\n    src_ckpt:', "{width: 4}\n    src_ckpt: 'S'")
    config = write(tmp_path, text.replace("'S'", f"'{tmp_path}/host.pt'").replace('num_epochs: 1', 'num_epochs: 2'))
    assert train(config, '--overwrite', '--start_epoch', '2') == 0
    state = last_state(tmp_path)
    assert state['progress']['best_value'] == 30
    assert comparable(state['modules']['student']) == comparable(student.state_dict())
    assert comparable(state['optimizer']) == comparable(optimizer.state_dict())
    if rates is not None:
        assert state['lr_scheduler']['last_epoch'] == rates.last_epoch == 2


def _trained_by_the_host(name):
    student = tiny.tiny_net()
    optimizer = get_optimizer(student, 'SGD', lr=0.05, momentum=0.9)
    rates = None
    if name != 'none':
        block = yaml.safe_load(SCHEDULERS[name])
        rates = get_scheduler(optimizer, block['key'], **block['kwargs'])
    for _ in range(2):
        student(torch.randn(8, 3, 8, 8)).sum().backward()
        optimizer.step()
        if name == 'ReduceLROnPlateau':
            rates.step(0.5)
        elif rates is not None:
            rates.step()
    return student, optimizer, rates
