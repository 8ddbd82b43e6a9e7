"""The documentation is held to the code: keywords, YAML, Python, links and commands."""

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys

import pytest
import torch
import yaml
from documents import PAGES, ROOT, blocks, commands, text_of
from torchdistill.losses.registry import get_high_level_loss

from configs.generator import __main__ as generator
from configs.generator import parameters
from trg_torchdistill.cli.main import parser_of
from trg_torchdistill.context import ContextualTerm
from trg_torchdistill.functional import GlobalTerm, LocalTerm
from trg_torchdistill.host import relation_losses
from trg_torchdistill.io import TokenOptions
from trg_torchdistill.losses.masks import TokenMask
from trg_torchdistill.registration import TABLE
from trg_torchdistill.schedules import WeightSchedule
from trg_torchdistill.wrappers import TokenProjector
from trg_torchdistill_cli import COMMANDS

sys.path.append(str(ROOT / 'docs' / '_ext'))
keywords = importlib.import_module('keywords')

TABULATED = [entry.target for entry in TABLE if isinstance(entry.target, type)]
TABULATED += [TokenOptions, TokenMask, TokenProjector, WeightSchedule, LocalTerm, GlobalTerm, ContextualTerm]
TESTS = ''.join(path.read_text(encoding='utf-8') for path in [*ROOT.glob('tests/**/*.py'), ROOT / '.ci' / 'run'])
TOOLS = ('accelerate', 'cd', 'cp', 'grep', 'mkdir', 'pip', 'tail')
# Those of torchdistill's repository, which is not here.
HOST_SCRIPTS = ('image_classification', 'object_detection', 'semantic_segmentation', 'text_classification')
LIVING = [page for page in PAGES if page != 'CHANGELOG.md']  # the changelog names what was


def slugs(page):
    """The anchors of a page's headings, also of those that it takes from another file."""
    text = text_of(page)
    for name in re.findall(r'```{include} \.\./(\S+)', text):
        text += text_of(name)
    headings = re.findall(r'^#+ (.+)$', re.sub(r'^```.*?^```$', '', text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


class TestReadme:
    def test_it_is_short(self):
        assert len(text_of('README.md').splitlines()) <= 120

    def test_it_has_one_picture(self):  # which the page of a package index leaves out: test_release.py
        assert len(re.findall(r'!\[.*?\]\(docs/images/[^:]*?\)', text_of('README.md'))) == 1


class TestKeywords:
    @pytest.mark.parametrize('target', TABULATED, ids=lambda target: target.__name__)
    def test_a_docstring_has_all_of_the_signature_in_its_order(self, target):
        _, texts, _ = keywords.split_arguments(inspect.getdoc(target).splitlines())
        assert [row[0] for row in keywords.keyword_rows(target, texts)] == list(inspect.signature(target).parameters)

    def test_a_row_is_made_of_signature_and_docstring(self):
        def build(path: str, k: int | None = None, is_kept: bool = True) -> None:
            """Builds.

            Args:
                path: Where.
                k: How many, or
                    None.
                is_kept: Whether.

            Raises:
                TRGError: Never.
            """

        before, texts, after = keywords.split_arguments(inspect.getdoc(build).splitlines())
        rows = [('path', '', 'Where.'), ('k', 'null', 'How many, or None.'), ('is_kept', 'true', 'Whether.')]
        assert keywords.keyword_rows(build, texts) == rows
        assert (before, after) == (['Builds.', ''], ['Raises:', '    TRGError: Never.'])
        with pytest.raises(ValueError, match=r"`Args:` of build to be \['path', 'k', 'is_kept'\], got \['path'\]"):
            keywords.keyword_rows(build, {'path': 'Where.'})


class AnyTag(yaml.SafeLoader):
    """Reads the tags of torchdistill as the values that they stand before."""


def _value(loader, suffix, node):
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else loader.construct_scalar(node)


AnyTag.add_multi_constructor('!', _value)
YAML_BLOCKS = [(page, text) for page in LIVING for text in blocks(page, 'yaml')]


def nodes(value):
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


class TestYaml:
    @pytest.mark.parametrize(('page', 'text'), YAML_BLOCKS)
    def test_what_it_names_exists(self, page, text):
        keys = {entry.key for entry in TABLE}
        for node in nodes(yaml.load(text, AnyTag)):
            if not isinstance(node, dict):
                continue
            if '.' in (name := str(node.get('key', ''))):
                module, _, attribute = name.rpartition('.')
                assert hasattr(importlib.import_module(module), attribute), name
            elif 'key' in node and 'TRG' in name:
                assert name in keys
            for option in ('student_tokens', 'teacher_tokens', 'tokens'):
                TokenOptions(**node.get(option) or {})

    @pytest.mark.parametrize('page', ['README.md', 'docs/start.md', 'docs/dense.md'])
    def test_a_training_builds_what_it_names(self, page):
        trainings = [found['train'] for text in blocks(page, 'yaml') if 'train' in (found := yaml.load(text, AnyTag))]
        assert trainings
        for train in trainings:
            self._builds(train)

    def _builds(self, train):
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


# Blocks of Python that a test of their own runs: a box with an accelerator, a loss with its picture, a hub.
PYTHON_ELSEWHERE = {
    'docs/accelerate.md': 'integration/test_accelerate.py',
    'docs/developing.md': 'integration/test_third_loss.py',
    'configs/official/README.md': 'contract/test_official.py',
}


@pytest.mark.parametrize('page', [page for page in LIVING if page not in PYTHON_ELSEWHERE and blocks(page, 'python')])
def test_python_runs(page):
    """What a block uses and does not make are the values that the text around it speaks of."""
    images, cells, side = 4, 16, 4
    given = {'student_map': torch.randn(images, 6, 8, 8), 'teacher_map': torch.randn(images, 6, 8, 8)}
    given |= {'student': torch.randn(images, cells, 6), 'teacher': torch.randn(images, cells, 6)}
    given |= {'B': images, 'N': cells, 'h': side, 'w': side, 'queue': torch.randn(16, 6)}
    given['labels'] = torch.randint(0, 2, (images, 8, 8)) * 255
    for code in blocks(page, 'python'):
        exec(code, given)


@pytest.mark.parametrize(('page', 'test'), PYTHON_ELSEWHERE.items())
def test_python_is_run_by_a_test_of_its_own(page, test):
    assert blocks(page, 'python')
    assert (ROOT / 'tests' / test).is_file()


class TestLinks:
    @pytest.mark.parametrize('page', PAGES)
    def test_they_lead_somewhere(self, page):
        for link in re.findall(r'\]\(([^)\s]+)\)', text_of(page)):
            if re.match(r'https?:', link):
                continue
            path, _, anchor = link.partition('#')
            target = (PAGES[page].parent / path).resolve() if path else PAGES[page]
            assert target.exists(), link
            if anchor:
                assert anchor in slugs(target.relative_to(ROOT).as_posix()), link

    def test_the_pages_of_the_site_are_all_of_the_folder(self):
        listed = re.findall(r'^(\w+)$', text_of('docs/index.md'), re.MULTILINE)
        assert sorted([*listed, 'index']) == sorted(path.stem for path in ROOT.glob('docs/*.md'))


class TestCommands:
    """Each command of each page is one that exists; `test_docs_commands.py` runs those of the guide."""

    @pytest.mark.parametrize('page', LIVING)
    def test_none_is_in_a_block_without_a_language(self, page):
        assert '' not in re.findall(r'^ *```(.*)$', text_of(page), re.MULTILINE)[::2]

    @pytest.mark.parametrize('page', LIVING)
    def test_they_exist(self, page):
        for words in commands(page):
            name = words[0].rpartition('/')[2]
            assert name in TOOLS or hasattr(self, f'_{name.replace("-", "_")}'), words
            if name not in TOOLS:
                getattr(self, f'_{name.replace("-", "_")}')(words[1:])

    def _trg_torchdistill(self, words):
        assert words[0] in (*COMMANDS, 'COMMAND')
        if len(words) > 1:
            with contextlib.redirect_stderr(sys.stdout):  # argparse says which word it does not know
                parser_of(words).parse_args(words)

    def _torchrun(self, words):
        start = words.index('trg_torchdistill')
        assert words[start - 1] == '-m'
        self._trg_torchdistill(words[start + 1 :])

    def _make(self, words):
        [target] = words
        assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)

    def _bash(self, words):
        assert (ROOT / words[0]).is_file()

    def _pytest(self, words):
        if '-m' in words:
            assert f'    "{words[words.index("-m") + 1]}: ' in (ROOT / 'pyproject.toml').read_text()
        assert all((ROOT / word).exists() for word in words if '/' in word)

    def _python(self, words):
        if words[:2] == ['-m', 'trg_torchdistill']:
            return self._trg_torchdistill(words[2:])
        if words[:2] == ['-m', 'pytest']:
            return self._pytest(words[2:])
        if words[0] == '-m':
            assert importlib.util.find_spec(words[1])
            return None
        script = ROOT / words[0]
        if script.stem in HOST_SCRIPTS:
            return None
        assert re.search(rf"['/]{script.stem}(\.py)?'|import {script.stem}\b", TESTS), f'no test runs {script}'
        sources = ''.join(path.read_text() for path in [*script.parent.glob('*.py'), *ROOT.glob('benchmarks/*.py')])
        assert script.is_file()
        assert all(f"'{word}'" in sources for word in words if word.startswith('--'))
        return None


@pytest.mark.slow
def test_the_table_of_the_models_is_what_the_command_prints():
    assert '\n'.join(parameters.table()) in text_of('docs/experiments.md')


def test_the_experiments_have_every_folder_and_yaml_of_the_generator():
    text = text_of('docs/experiments.md')
    folders = set(re.findall(r'\]\(\.\./(configs/[^)]+)\)', text))
    assert {f'configs/{name.rsplit("/", 2)[0]}' for name in generator.files()} <= folders
    assert f'Each of the {len(generator.files())} YAMLs' in text
    named = [
        words[2]
        for words in commands('docs/experiments.md')
        if words[:2] == ['trg-torchdistill', 'train'] and words[2:]
    ]
    assert len(named) == 4
    assert all((ROOT / name).is_file() for name in named)
