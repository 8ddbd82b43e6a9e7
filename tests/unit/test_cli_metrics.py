from types import SimpleNamespace

import torch
from torch import nn

from trg_torchdistill.cli.train.metrics import TermMeter, learning_rate_of, temperature_of
from trg_torchdistill.losses import TRGLoss


class Term(nn.Module):
    def forward(self, value):
        return value


def criterion_of(**terms):
    return SimpleNamespace(term_dict={name: (term, 0.5) for name, term in terms.items()})


def trg(temperature):
    kwargs = {f'{side}_module_{part}': 'output' for side in ('student', 'teacher') for part in ('path', 'io')}
    return TRGLoss(**kwargs, temperature=temperature)


def test_means_are_over_steps_and_before_the_weight():
    term = Term()
    with TermMeter(criterion_of(ce=term)) as meter:
        for value in (1.0, 2.0, 6.0):
            term(torch.tensor(value, requires_grad=True))
        assert meter.means() == {'ce': 3.0}
    term(torch.tensor(100.0))
    assert meter.means() == {'ce': 3.0}


def test_a_loss_without_terms():
    with TermMeter(nn.Module()) as meter:
        assert meter.means() == {}


def test_temperatures():
    assert temperature_of(nn.Module()) is temperature_of(criterion_of(ce=Term())) is None
    assert temperature_of(criterion_of(ce=Term(), a=trg(0.2), b=trg(0.2))) == 0.2
    assert temperature_of(criterion_of(a=trg(0.2), b=trg(0.3))) == {'a': 0.2, 'b': 0.3}


def test_learning_rates():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    assert learning_rate_of(torch.optim.SGD(parameters, lr=0.1)) == 0.1
    groups = [{'params': [parameters[0]], 'lr': 0.2}, {'params': [parameters[1]]}]
    assert learning_rate_of(torch.optim.SGD(groups, lr=0.1)) == [0.2, 0.1]
