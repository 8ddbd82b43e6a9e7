"""Command-line arguments that several sub-commands have, and their types."""

from __future__ import annotations

import argparse
import math

from trg_torchdistill.cli.probe.image_size import ImageSize


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what a YAML may not tell without its data."""
    parser.add_argument(
        '--input-size', type=image_size, metavar='N or HxW', help='size of the images; default: from the transforms'
    )
    parser.add_argument(
        '--num-classes', type=positive, metavar='N', help='number of classes, where the YAML reads it from its data'
    )


def positive(text: str) -> int:
    """Returns a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number >= 1, got {text!r}')
    return int(text)


def not_negative(text: str) -> float:
    """Returns a finite number >= 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number >= 0, got {text!r}')
    return number


def image_size(text: str) -> ImageSize:
    """Returns the size of images written as N or HxW."""
    height, _, width = text.lower().partition('x')
    return ImageSize(positive(height), positive(width or height), '--input-size')
