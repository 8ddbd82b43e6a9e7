"""Splits an ImageFolder tree of CIFAR-10 for the accuracy grid: python benchmarks/accuracy/prepare.py SOURCE OUT.

SOURCE holds train/CLASS/* and test/CLASS/*. OUT gets train/, val/ and test/ of symbolic links: val/ is the last
``--val`` (500) training images of each class by name, train/ the others. Weights are tuned on val/, never on test/.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def split_tree(source: Path, out: Path, num_val: int) -> dict[str, int]:
    """Links the files and returns the number of images of each split.

    Raises:
        FileExistsError: If ``out`` exists.
        ValueError: If a class has too few training images.
    """
    splits: dict[str, list[Path]] = {'train': [], 'val': [], 'test': sorted(source.glob('test/*/*'))}
    for folder in sorted(path for path in source.glob('train/*') if path.is_dir()):
        files = sorted(folder.iterdir())
        if len(files) <= num_val:
            raise ValueError(f'expected more than {num_val} training images in {folder}, got {len(files)}')
        splits['train'] += files[:-num_val]
        splits['val'] += files[-num_val:]
    if not splits['train'] or not splits['test']:
        raise ValueError(f'expected images in {source}/train/CLASS and {source}/test/CLASS, got none')
    out.mkdir(parents=True)
    for split, files in splits.items():
        for file in files:
            link = out / split / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return {split: len(files) for split, files in splits.items()}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--val', type=int, default=500, help='training images of each class that become val/')
    options = parser.parse_args()
    print(split_tree(options.source, options.out, options.val))


if __name__ == '__main__':
    main()
