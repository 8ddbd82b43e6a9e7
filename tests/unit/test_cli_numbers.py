"""Values that are not what they look like are found where they stand, and nothing else is."""

import pytest

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.recipe.numbers import check_values, decimal
from trg_torchdistill.errors import TRGError

ALIAS = """
_notes: {lr: &lr 1e-3}
train:
  optimizer: {key: 'SGD', kwargs: {lr: *lr}}
"""
MERGE = """
_base: &base
  lr: 0.1
  momentum: 9e-1
train:
  optimizer:
    key: 'SGD'
    kwargs:
      <<: *base
      lr: 0.2
"""
QUOTED_ALIAS = """
_notes: {lr: &lr '0.1'}
train:
  optimizer: {key: 'SGD', kwargs: {lr: *lr}}
"""


def check(text):
    check_values(Config('config.yaml', text, parse_deferred(text)))


@pytest.mark.parametrize(
    ('text', 'place'),
    [
        (ALIAS, '`train.optimizer.kwargs.lr` (line 2)'),
        (MERGE, '`train.optimizer.kwargs.momentum` (line 4)'),
        (QUOTED_ALIAS, '`train.optimizer.kwargs.lr` (line 2)'),
    ],
)
def test_the_line_is_that_of_the_scalar(text, place):
    with pytest.raises(TRGError) as error:
        check(text)
    assert place in str(error.value)


@pytest.mark.parametrize(
    'text',
    [
        "models: {model: {key: 'x', kwargs: {name: '1e3'}, dst_ckpt: 1e3}}",
        'tracker: {kwargs: {name: 1e3}}',
        "train: {optimizer: {key: 'SGD', kwargs: {lr: 1, momentum: 0.9, nesterov: yes, foreach: }}}",
        "train: {scheduler: {key: 'CosineAnnealingLR', kwargs: {T_max: 10.0}, scheduling_step: 0}}",
        "train: {scheduler: {key: 'OneCycleLR', kwargs: {max_lr: [0.1, 1], total_steps: }}}",
        "datasets: {train: !import_call {key: 'x', init: {kwargs: {root: !join [./data, 1e3]}}}}",
        'train: {criterion: {kwargs: {sub_terms: {ce: {weight: 1.0e-3}}}}}',
        '&loop a: [*loop]',
        'train: 3',
        'train: {stage1: [], 7: {}}',
    ],
)
def test_what_is_right_or_told_elsewhere_passes(text):
    check(text)


@pytest.mark.parametrize(
    ('text', 'written'),
    [
        ('1e-3', '`1.0e-3`'),
        ('-2E5', '`-2.0e+5` or `-200000`'),
        ('1.5e3', '`1.5e+3` or `1500`'),
        ('08', '`8`'),
        ('0o17', '`15`'),
        ('1e30', '`1.0e+30`'),
        ('0.10', '`0.10`'),
        ('1e999', None),
        ('nan', None),
        ('layer1', None),
        ('', None),
    ],
)
def test_how_a_number_is_written(text, written):
    assert decimal(text) == written
