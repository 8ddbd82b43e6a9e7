"""Keys that nobody reads, keywords that a class swallows, and data sets that are looked at but not built."""

import pytest
from torch import nn
from torchdistill.losses.mid_level import KDLoss
from torchdistill.losses.registry import register_mid_level_loss

from trg_torchdistill.cli.check.unread_keys import check_datasets, ignored_keywords, unread_keys
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.errors import TRGError

CONFIG = """
datasets:
  a: !import_call {key: 'torchvision.datasets.FakeData', init: {kwargs: {size: 4}}}
models:
  _note: 'left alone'
  student_model: {key: 'x', kwargs: {}}
  teacher_model: {key: 'x', kwargs: {}}
train:
  log_freq: 1
  num_epochs: 1
  train_data_loader: {dataset_id: 'a', kwargs: {batch_size: 2}}
  teacher: {forward_proc: 'forward_batch_only', forward_hook: {input: [], output: []}}
  student: {forward_proc: 'forward_batch_only'}
  optimizer: {key: 'SGD', kwargs: {lr: 0.1}}
  criterion:
    key: 'WeightedSumLoss'
    kwargs:
      sub_terms:
        swallow: {criterion: {key: 'Swallow', kwargs: {used: 1}}, weight: 1.0}
test: {test_data_loader: {dataset_id: 'a'}}
"""


class Base(nn.Module):
    def __init__(self, inherited=0, **kwargs):
        super().__init__()


@register_mid_level_loss
class Swallow(Base):
    def __init__(self, used, **kwargs):
        super().__init__(**kwargs)
        self.option = kwargs.get('option')


class HandsOn(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.inner = nn.CrossEntropyLoss(**kwargs)


def load(tmp_path, text):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    return load_deferred(str(path))


def texts(tmp_path, found='', replacement=''):
    assert found in CONFIG
    return [notice.text for notice in unread_keys(load(tmp_path, CONFIG.replace(found, replacement)), CLASSIFICATION)]


def test_a_yaml_without_strange_keys_has_no_warning(tmp_path):
    assert texts(tmp_path) == []


@pytest.mark.parametrize(
    ('found', 'replacement', 'parts'),
    [
        ('forward_hook:', 'forward_hooks:', ['`train.teacher.forward_hooks` (line 12)', 'did you mean `forward_hook`']),
        (
            "  student: {forward_proc: 'forward_batch_only'",
            "  student: {auxiliary_model_wrapper: {key: 'x', kwargs: {own: {a: 1}, inner: {key: 'y', kwargz: 1}}}",
            ['`train.student.auxiliary_model_wrapper.kwargs.inner.kwargz` (line 13)', 'did you mean `kwargs`'],
        ),
        ('log_freq:', 'log_fraq:', ['`train.log_fraq` (line 9)', '`log_freq`']),
        ('test:', 'tests:', ['`tests` (line 20)', '`test`']),
        ("dataset_id: 'a', kwargs", "dataset_id: 'a', num_workers: 1, kwargs", ['stands under its `kwargs:`']),
        ('{lr: 0.1}}', '{lr: 0.1}, max_grad_nrm: 1}', ['`train.optimizer.max_grad_nrm`', '`max_grad_norm`']),
        ('weight: 1.0}', 'weight: 1.0, wieght: 2.0}', ['sub_terms.swallow.wieght`', '`weight`']),
        ('{used: 1}', '{used: 1, usde: 2}', ['`Swallow` takes any keyword', 'kwargs.usde`', 'did you mean `used`']),
    ],
)
def test_each_strange_key_is_named_with_its_line_and_the_nearest_one(found, replacement, parts, tmp_path):
    warnings = texts(tmp_path, found, replacement)
    assert len(warnings) == 1
    assert [part for part in parts if part not in warnings[0]] == [], warnings


def test_keywords_that_a_class_reads_are_not_reported():
    assert ignored_keywords(Swallow, ['used', 'inherited', 'option', 'other']) == ['other']
    assert ignored_keywords(HandsOn, ['anything']) == []
    assert ignored_keywords(None, ['anything']) == []
    assert ignored_keywords(nn.CrossEntropyLoss, ['anything']) == []  # refused when it is built
    assert ignored_keywords(KDLoss, ['temperature', 'alpha', 'reduction']) == []


@pytest.mark.parametrize(
    ('found', 'replacement', 'part'),
    [
        ('FakeData', 'FakeDta', "no attribute 'FakeDta'"),
        ('{size: 4}', '{sise: 4}', "unexpected keyword argument 'sise'"),
    ],
)
def test_data_sets_are_imported_and_bound_but_not_built(found, replacement, part, tmp_path):
    check_datasets(load(tmp_path, CONFIG))
    with pytest.raises(TRGError, match=part):
        check_datasets(load(tmp_path, CONFIG.replace(found, replacement)))
