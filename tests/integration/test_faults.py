"""A training is killed, or the disk is full, at the worst moment: no half-written file, and nothing is lost."""

import json
import signal
from pathlib import Path

import faults
import pytest
import torch
from tiny import CE, KD, TRG, TRG_SIDES, comparable, last_state, lines_of, stage, train, without_times, write_training

pytestmark = pytest.mark.slow

EPOCHS = 3
FILES = ['config.yaml', 'metrics.jsonl', 'last.pt', 'test.json', 'projectors.pt', 'student.pt']
KILLS = {
    'a step of the third epoch': ('', 8, 'step'),
    'state, half of it': ('last.pt', 3, 'half'),
    'state, not yet renamed': ('last.pt', 3, 'before'),
    'state, just renamed': ('last.pt', 3, 'after'),
    'the very first state': ('last.pt', 1, 'half'),
    'best weights': ('student.pt', 1, 'half'),
    'best weights, just renamed': ('student.pt', 1, 'after'),
    'projections': ('projectors.pt', 2, 'half'),
    'metrics': ('metrics.jsonl', 3, 'half'),
    'test results': ('test.json', 1, 'half'),
}


def write_trg(folder, epochs=EPOCHS):
    """A YAML of the full method, with all files that a run can write in `folder`."""
    path = f"projector_ckpt: '{folder}/projectors.pt', projectors: {{p:"
    return write_training(folder, stage(epochs, CE + KD + TRG, sides=TRG_SIDES.replace('projectors: {p:', path)))


def results(folder):
    """All that a run leaves, without times."""
    return {
        'metrics': without_times(lines_of(folder)),
        'test': json.loads((folder / 'student' / 'test.json').read_text()) | {'weights': None},
        'last': comparable(last_state(folder)),
        'best': comparable({**torch.load(folder / 'student.pt', weights_only=True), 'args': None}),
        'projections': comparable(torch.load(folder / 'projectors.pt', weights_only=True)),
    }


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp('whole')
    assert train(write_trg(folder), '--seed', '3') == 0
    return results(folder)


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """The folder of a killed run for each case."""
    folders = {name: tmp_path_factory.mktemp('killed') for name in KILLS}
    entries = [
        {'config': write_trg(folders[name]), 'at': at, 'number': number, 'moment': moment, 'words': ['--seed', '3']}
        for name, (at, number, moment) in KILLS.items()
    ]
    assert {code for code, _ in faults.run(entries)} == {-signal.SIGKILL}
    return folders


@pytest.mark.parametrize('name', KILLS)
def test_a_killed_run_leaves_whole_files_and_goes_on_exactly(name, killed, whole):
    folder = killed[name]
    for path in folder.rglob('*'):
        if path.suffix == '.pt':
            torch.load(path, weights_only=True)
        elif path.suffix in ('.json', '.jsonl'):
            [json.loads(line) for line in path.read_text().splitlines()]
    begun = name != 'the very first state'
    assert train(str(folder / 'config.yaml'), '--seed', '3', *(['--resume'] if begun else [])) == 0
    assert results(folder) == whole
    assert sorted(Path(path).name for path in files_of(folder)) == sorted(FILES)


UNWRITABLE = {
    'metrics': ('full', 100, 'metrics.jsonl', 'File too large'),
    'weights': ('full', 5_000, 'student.pt', 'File too large'),
    'folder': ('read-only', 0, 'metrics.jsonl', 'Permission denied'),
}


@pytest.fixture(scope='module')
def unwritable(tmp_path_factory):
    """For each case the folder of a run of one epoch, its files, and how two more epochs ended."""
    folders, files, entries = {}, {}, []
    for name, (moment, number, _, _) in UNWRITABLE.items():
        folders[name] = tmp_path_factory.mktemp('unwritable')
        assert train(write_trg(folders[name], 1), '--seed', '3') == 0
        where = {'at': str(folders[name] / 'student'), 'number': number, 'moment': moment}
        entries.append({'config': write_trg(folders[name]), **where, 'words': ['--resume']})
        files[name] = files_of(folders[name])
    endings = faults.run(entries)
    (folders['folder'] / 'student').chmod(0o755)
    return {name: (folders[name], files[name], *ending) for name, ending in zip(UNWRITABLE, endings, strict=True)}


@pytest.mark.parametrize('name', UNWRITABLE)
def test_a_full_disk_or_a_read_only_folder_is_one_message_and_keeps_the_older_files(name, unwritable):
    _, _, file, reason = UNWRITABLE[name]
    folder, before, code, said = unwritable[name]
    assert code == 1
    assert said.count('error: ') == 1
    assert 'Traceback' not in said
    assert f'error: expected to write {folder}/' in said
    advice = 'the older file was kept. Free space on that disk, make the folder writable, or change the path'
    assert f'{file}, got {reason}; {advice}' in said
    assert files_of(folder) == before
