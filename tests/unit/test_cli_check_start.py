"""The weights that `check --data` tells, from made-up gradients."""

from types import SimpleNamespace

import pytest
from torch import nn

from trg_torchdistill.cli.check.start import START_RATIO, Start, pulls_of
from trg_torchdistill.cli.check.steps import Term
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.losses import RelationLoss, TRGLoss

PATHS = {
    'student_module_path': 'a',
    'student_module_io': 'output',
    'teacher_module_path': 'b',
    'teacher_module_io': 'output',
}
START = Start(START_RATIO)


class NearAndFar(RelationLoss):
    """Of another package, with two parts that are weighed by one keyword."""

    summary = ''

    def __init__(self, lam):
        super().__init__(**PATHS)
        self.lam = lam

    @property
    def graph(self):
        return LocalTerm()

    def compute(self, student_io_dict, teacher_io_dict, targets):
        raise NotImplementedError


def pulls(loss, *parts, outer=0.5):
    """Of `kd` with a gradient of 4 beside one of our losses, whose parts have weight and norm."""
    terms = [Term('kd', '', 1.0, 1.0, 4.0), *(Term('own', part, outer * own, 1.0, norm) for part, own, norm in parts)]
    return pulls_of(terms, SimpleNamespace(term_dict={'kd': (nn.Identity(), 1.0), 'own': (loss, outer)}), START)


def test_each_part_gets_half():
    ((pull,), why) = pulls(TRGLoss(**PATHS), ('local', 3.0, 6.0), ('global', 1.0, 0.6))
    assert (pull.ratio, why) == (pytest.approx(6.6 / 4), '')
    assert pull.weights == pytest.approx({'local_weight': 3.0 * 2.4 / 6.0, 'global_weight': 2.4 / 0.6})


def test_parts_without_keywords_of_their_own_get_the_weight_of_the_whole():
    ((pull,), _) = pulls(NearAndFar(lam=1.0), ('near', 1.0, 6.0), ('far', 1.0, 2.0))
    assert pull.weights == pytest.approx({'weight': 0.5 * START_RATIO * 4 / 8})


def test_nothing_is_asked_of_a_loss_that_does_not_pull():
    assert pulls(TRGLoss(**PATHS), ('local', 3.0, 0.0)) == ([], '')
