"""The temperature as a function of the epoch."""

import dataclasses
import itertools

import pytest
import reference
from helpers import assert_close

from trg_torchdistill.schedules import TemperatureSchedule, WeightSchedule

SCHEDULES = ('cosine', 'linear', 'exponential')


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize(('start', 'end'), [(0.5, 0.1), (0.1, 0.5), (1, 0.07), (2.0, 2.0)])
@pytest.mark.parametrize('num_epochs', [1, 2, 3, 10, 240])
def test_every_epoch_follows_the_reference(schedule, start, end, num_epochs):
    temperature = TemperatureSchedule(start, end, schedule)
    for epoch in range(num_epochs + 2):
        value = temperature.at(epoch, num_epochs)
        assert isinstance(value, float)
        assert_close(value, reference.value_at(start, end, schedule, epoch, num_epochs))


@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('until', [0.1, 0.5, 1])
def test_a_weight_may_reach_0_and_before_the_end(schedule, until):
    for epoch in range(12):
        value = WeightSchedule(1.0, 0, schedule, until).at(epoch, 11)
        assert_close(value, reference.value_at(1.0, 0.0, schedule, epoch, 11, until))
        assert (value == 0) == (epoch >= 10 * until)


def test_a_negative_epoch_is_an_error():
    with pytest.raises(ValueError, match=r'expected `epoch` to be an integer >= 0, got -3'):
        TemperatureSchedule(0.5, 0.1, 'cosine').at(-3, 10)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize(('start', 'end'), [(0.5, 0.1), (0.1, 0.5)])
def test_the_temperature_moves_one_way_and_stays_between_the_ends(schedule, start, end):
    values = [TemperatureSchedule(start, end, schedule).at(epoch, 50) for epoch in range(50)]
    assert min(values) >= min(start, end) * (1 - 1e-12)
    assert max(values) <= max(start, end) * (1 + 1e-12)
    signs = {(later > earlier) - (later < earlier) for earlier, later in itertools.pairwise(values)}
    assert signs == {-1 if end < start else 1}


def test_half_way_values_by_hand():
    assert_close(TemperatureSchedule(0.5, 0.1, 'linear').at(2, 5), 0.3)
    assert_close(TemperatureSchedule(0.5, 0.1, 'cosine').at(2, 5), 0.3)
    assert_close(TemperatureSchedule(0.5, 0.1, 'cosine').at(1, 4), 0.4)
    assert_close(TemperatureSchedule(0.4, 0.1, 'exponential').at(2, 5), 0.2)


def test_a_schedule_is_frozen_and_compares_by_value():
    temperature = TemperatureSchedule(start=0.5, end=0.1, schedule='cosine')
    assert temperature == TemperatureSchedule(0.5, 0.1, 'cosine')
    with pytest.raises(dataclasses.FrozenInstanceError):
        temperature.start = 1.0


BAD_OPTIONS = {
    'zero start': ({'start': 0.0}, ValueError, 'start'),
    'negative start': ({'start': -0.5}, ValueError, 'start'),
    'zero end': ({'end': 0}, ValueError, 'end'),
    'negative end': ({'end': -1}, ValueError, 'end'),
    'nan end': ({'end': float('nan')}, ValueError, 'end'),
    'infinite start': ({'start': float('inf')}, ValueError, 'start'),
    'text start': ({'start': '0.5'}, TypeError, 'start'),
    'no end': ({'end': None}, TypeError, 'end'),
    'unknown schedule': ({'schedule': 'cosin'}, ValueError, 'schedule'),
    'no schedule': ({'schedule': None}, (ValueError, TypeError), 'schedule'),
}


@pytest.mark.parametrize(('options', 'error', 'field'), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_fail_at_construction_and_name_the_field(options, error, field):
    with pytest.raises(error, match=rf'expected `[\w.]*{field}` to be .*, got'):
        TemperatureSchedule(**({'start': 0.5, 'end': 0.1, 'schedule': 'cosine'} | options))
