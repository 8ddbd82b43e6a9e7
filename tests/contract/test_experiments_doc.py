"""``docs/experiments.md`` is held to the YAMLs and the models."""

import re
from pathlib import Path

import pytest

from configs.generator import parameters
from configs.generator.__main__ import files

DOCS = Path(__file__).parents[2] / 'docs'
TEXT = (DOCS / 'experiments.md').read_text(encoding='utf-8')


@pytest.mark.slow
def test_the_table_of_the_models_is_what_the_command_prints():
    assert '\n'.join(parameters.table()) in TEXT


def test_every_folder_is_in_the_table_and_every_link_leads_somewhere():
    links = {link for link in re.findall(r'\]\(([^)#]+)\)', TEXT) if not link.startswith('http')}
    assert [link for link in links if not (DOCS / link).exists()] == []
    assert {f'../configs/{name.rsplit("/", 2)[0]}' for name in files()} <= links


def test_every_yaml_of_a_command_exists():
    named = re.findall(r'^trg-torchdistill train (\S+)', TEXT, re.MULTILINE)
    assert len(named) == 4
    assert all((DOCS.parent / name).is_file() for name in named)


def test_the_number_of_yamls_is_right():
    assert f'Each of the {len(files())} YAMLs' in TEXT
