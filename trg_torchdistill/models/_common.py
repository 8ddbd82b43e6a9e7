"""What the small models share: the check of their argument and the initial weights."""

from __future__ import annotations

from torch import nn

from trg_torchdistill._checks import advice, check_integer


def check_num_classes(key: str, num_classes: object) -> None:
    """Raises TRGError or ValueError unless the number of classes is an integer of at least 1."""
    with advice(f'change it under the `kwargs:` of the model `{key}`'):
        check_integer('num_classes', num_classes, 1)


def initialize(model: nn.Module, linear_std: float | None = None) -> None:
    """Draws the weights of the convolutions from He's normal distribution (fan out); their biases start at zero.

    Args:
        model: Model to change.
        linear_std: Standard deviation of the weights of the linear layers, whose biases start at zero then; None leaves
            torch's own start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
