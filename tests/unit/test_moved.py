"""What scripts and YAMLs of version 0.1 name: each is found, or refused, with the new name in one message."""

import importlib
import re

import pytest
import torch

from trg_torchdistill import TRGError, functional

MOVED = [
    ('trg_torchdistill.graph', 'context_similarity', 'trg_torchdistill.context'),
    ('trg_torchdistill.cli.deferred', 'load_deferred', 'trg_torchdistill.cli.recipe.deferred'),
    ('trg_torchdistill.cli.deferred', 'parse_deferred', 'trg_torchdistill.cli.recipe.deferred'),
]
RENAMED = {'affinity_support': 'it is now `row_distribution`', 'rows': 'it is now an argument of the call'}


@pytest.mark.parametrize(('old', 'name', 'new'), MOVED, ids=[f'{old}.{name}' for old, name, _ in MOVED])
def test_a_name_that_moved_is_found_with_one_warning(old, name, new):
    message = f'`{old}.{name}` is now `{new}.{name}`; the old name goes with version 0.3'
    with pytest.warns(DeprecationWarning, match=f'^{re.escape(message)}$') as told:
        found = getattr(importlib.import_module(old), name)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert found is getattr(importlib.import_module(new), name)


def test_an_import_of_a_name_that_moved_works_and_one_of_no_name_does_not():
    with pytest.warns(DeprecationWarning, match='is now `trg_torchdistill.context.context_similarity`'):
        from trg_torchdistill.graph import context_similarity
    assert context_similarity(torch.zeros(1, 2, 3)).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    with pytest.raises(ImportError, match='cannot import name'):
        from trg_torchdistill.graph import context_similarities  # noqa: F401


@pytest.mark.parametrize('key', RENAMED)
def test_a_key_that_was_renamed_is_refused_with_the_new_name(key):
    tokens = torch.ones(4, 2)
    with pytest.raises(TRGError, match=f'got `{key}`; {RENAMED[key]}'):
        functional.local_preserving_loss(tokens, tokens, **{key: None})
