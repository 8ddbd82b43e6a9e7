"""Writes a table: each loss of `loss_table` against the naive float64 loops, the largest relative errors of all seeds.

python tests/exactness.py [--seeds 5]
"""

import argparse

import torch
from helpers import gradient_of
from loss_table import EVERY

SHAPES = ((2, 5, 5), (3, 4, 2), (1, 2, 3), (2, 12, 16))


def errors(loss, shape, dtype):
    """Error of the value beside the value, and of the gradient beside its norm; both are absolute where these are 0."""
    student, teacher = loss.pair(shape, dtype, scale=1.0)
    exact = student.detach().double().requires_grad_()
    value, expected = loss(student, teacher), loss.expected(exact, teacher)
    gradient, wanted = gradient_of(value, student).double(), gradient_of(expected, exact)
    size, norm = (float(each) or 1.0 for each in (expected.detach().abs(), wanted.norm()))
    return abs(float(value.detach()) - float(expected.detach())) / size, float((gradient - wanted).norm()) / norm


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=5)
    seeds = parser.parse_args().seeds
    print('| loss | float64: value | gradient | float32: value | gradient |\n|---|---|---|---|---|')
    for name, loss in EVERY.items():
        cells = []
        for dtype in (torch.float64, torch.float32):
            found = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                found += [errors(loss, shape, dtype) for shape in SHAPES]
            cells += [f'{max(each):.0e}' for each in zip(*found, strict=True)]
        print(f'| {name} | {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
