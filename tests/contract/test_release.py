"""What is said in more than one place of a release agrees, and an index shows nothing that leads nowhere."""

import configparser
import re
import runpy
from pathlib import Path

import pytest
import yaml

from trg_torchdistill import __version__

ROOT = Path(__file__).parents[2]
index_page = runpy.run_path(str(ROOT / 'setup.py'))['index_page']
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))


def read(name):
    return (ROOT / name).read_text(encoding='utf-8')


def steps_of(workflow):
    return [step for job in yaml.safe_load(workflow.read_text())['jobs'].values() for step in job['steps']]


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load(read('CITATION.cff'))['version'] == __version__
    newest = re.search(r'^## \[(.+?)\](?: - (\S+))?$', read('CHANGELOG.md'), re.MULTILINE)
    assert newest[1] == 'Unreleased' or (newest[1] == __version__ and re.fullmatch(r'\d{4}-\d\d-\d\d', newest[2]))


def test_pre_commit_has_the_ruff_of_the_environment():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read_string(read('setup.cfg'))
    pinned = re.search(r'^ruff==(.+)$', setup['options.extras_require']['dev'], re.MULTILINE)[1]
    repos = {repo['repo'].rpartition('/')[2]: repo for repo in yaml.safe_load(read('.pre-commit-config.yaml'))['repos']}
    assert repos['ruff-pre-commit']['rev'] == f'v{pinned}'


def test_the_page_of_an_index_has_no_relative_link_or_image():
    page = index_page(read('README.md'))
    assert re.findall(r'\]\((?!https?://)', page) == []
    assert set(re.findall(r'\]\((https?://[^)]+)\)', read('README.md'))) == set(
        re.findall(r'\]\((https?://[^)]+)\)', page)
    )


@pytest.mark.parametrize(
    ('readme', 'page'),
    [
        ('a ![map, [B, D]](docs/a.png) b', 'a  b'),
        ('[`docs/results.md`](docs/results.md#tables), [below](#limits)', '`docs/results.md`, below'),
        ('[![badge](https://a.b/c.svg)](docs/a.md)', '![badge](https://a.b/c.svg)'),
        ('[paper](https://arxiv.org/abs/2306.12442) [B, D]', '[paper](https://arxiv.org/abs/2306.12442) [B, D]'),
    ],
    ids=['image', 'links', 'badge', 'web'],
)
def test_what_leads_into_the_repository_is_taken_out(readme, page):
    assert index_page(readme) == page


@pytest.mark.parametrize('workflow', WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_a_workflow_runs_what_there_is(workflow):
    targets = re.findall(r'^(\w+):', read('Makefile'), re.MULTILINE)
    for step in steps_of(workflow):
        if 'uses' in step:
            assert re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40}', step['uses'])
        else:
            script, is_make, target = step['run'].partition('make ')
            assert target in targets if is_make else (ROOT / script).is_file()


def test_the_tests_of_spawned_processes_exist():
    named = re.findall(r'tests/\S+', read('.ci/spawned'))
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert len(named) == 4
