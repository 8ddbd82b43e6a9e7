"""The documentation is held to the code: keys, defaults, YAML blocks and links."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from torchdistill.losses.registry import get_high_level_loss

from configs.generator import __main__ as generator
from configs.generator import parameters
from trg_torchdistill.host import relation_losses
from trg_torchdistill.io import TokenOptions
from trg_torchdistill.losses import TokenContextualLoss, TRGLoss
from trg_torchdistill.losses.masks import TokenMask
from trg_torchdistill.registration import TABLE
from trg_torchdistill.wrappers import TokenProjector

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
MASKS = ROOT / 'docs' / 'masks.md'
EXPERIMENTS = ROOT / 'docs' / 'experiments.md'
YAML_BLOCKS = re.findall(r'```yaml\n(.*?)```', README, re.DOTALL)


def links_of(path):
    links = re.findall(r'\]\(([^)#]+)[^)]*\)', path.read_text(encoding='utf-8'))
    return [link for link in links if not link.startswith('http')]


def test_the_key_table_is_the_registration_table():
    rows = re.findall(r'^\| ([a-z-]+(?: [a-z-]+)*) \| `(\w+)` \| (.+?) \|$', README, re.MULTILINE)
    assert rows == [(entry.kind, entry.key, entry.description) for entry in TABLE]


def test_the_readme_has_both_yaml_examples():
    assert len(YAML_BLOCKS) == 2


@pytest.mark.parametrize('text', YAML_BLOCKS)
def test_yaml_of_the_readme_builds_what_it_names(text):
    train = yaml.safe_load(text)['train']
    losses = relation_losses(get_high_level_loss(train['criterion']))
    assert 'trg' in losses
    hooked = train['student']['forward_hook']['output']
    for loss in losses.values():
        assert loss.student_module_path in hooked
        assert loss.teacher_module_path in train['teacher']['forward_hook']['output']
    if 'auxiliary_model_wrapper' in train['student']:
        projectors = train['student']['auxiliary_model_wrapper']['kwargs']['projectors']
        for name, kwargs in projectors.items():
            TokenProjector(**kwargs)
            assert f'projectors.{name}' in hooked
            assert losses['trg'].projection.path == f'projectors.{name}'


@pytest.mark.parametrize('target', [TRGLoss, TokenContextualLoss, TokenOptions, TokenMask])
def test_the_documents_have_every_keyword_with_its_default(target):
    documented = set(re.findall(r'^\| (`.+?) \| (\S+) \|', README + MASKS.read_text(), re.MULTILINE))
    rows = {(keyword, default) for names, default in documented for keyword in re.findall(r'`(\w+)`', names)}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.default is parameter.empty:
            assert f'`{name}`' in README
        else:
            default = yaml.safe_dump(parameter.default).removesuffix('...\n').strip()
            assert (name, default) in rows


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md', 'docs/experiments.md', 'docs/masks.md'])
def test_links_to_files_lead_somewhere(name):
    for link in links_of(ROOT / name):
        assert ((ROOT / name).parent / link).exists(), link


@pytest.mark.slow
def test_the_table_of_the_models_is_what_the_command_prints():
    assert '\n'.join(parameters.table()) in EXPERIMENTS.read_text(encoding='utf-8')


def test_the_experiments_have_every_folder_and_yaml_of_the_generator():
    text = EXPERIMENTS.read_text(encoding='utf-8')
    assert {f'../configs/{name.rsplit("/", 2)[0]}' for name in generator.files()} <= set(links_of(EXPERIMENTS))
    assert f'Each of the {len(generator.files())} YAMLs' in text
    named = re.findall(r'^trg-torchdistill train (\S+)', text, re.MULTILINE)
    assert len(named) == 4
    assert all((ROOT / name).is_file() for name in named)
