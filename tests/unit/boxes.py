"""Boxes without torchdistill behind them."""

from types import SimpleNamespace


class FakeBox(SimpleNamespace):
    """A box that has what it is given, nothing under the names of `lacking`, and None under any other name."""

    def __getattr__(self, name):
        if name in self.__dict__['lacking']:
            raise AttributeError(name)


def training_box(**values):
    return FakeBox(**{'lacking': ('teacher_model', 'stage_number'), **values})


def distillation_box(**values):
    return FakeBox(**{'lacking': ('model', 'stage_number'), **values})
