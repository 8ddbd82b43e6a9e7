"""KD against KD with TRG on segmentation of shapes, under torchdistill's own trainer.

python benchmarks/tasks/segmentation.py CHECKOUT FOLDER [--seeds 0 1 2] [--methods kd trg trg-0.2]

CHECKOUT is a checkout of torchdistill's repository, whose ``examples/torchvision/semantic_segmentation.py`` runs as it
is; it needs pycocotools. FOLDER gets the images, the teacher and a folder for each run; what is there is not made
again. One teacher, trained with the labels, teaches all students. ``trg`` is what ``trg-torchdistill add
--contextual-weight 1`` makes of ``configs/segmentation_kd.yaml``, ``trg-0.2`` the same with a fifth of the weight of
its ``trg`` term.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAINER = Path('examples', 'torchvision', 'semantic_segmentation.py')
KD = HERE / 'configs' / 'segmentation_kd.yaml'
TEACHER = HERE / 'configs' / 'segmentation_teacher.yaml'
NUM_CLASSES = 5
# What `add` is told; kd is what it starts from.
CONTEXTUAL = ('--contextual-weight', '1')
METHODS = {'kd': None, 'trg': CONTEXTUAL, 'trg-0.2': (*CONTEXTUAL, '--weight', '0.2')}


class Runs:
    """The runs in a folder.

    Args:
        checkout: Checkout of torchdistill's repository.
        folder: Where they are, and are made.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.trainer, self.folder = (checkout / TRAINER).resolve(), folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / 'shapes').exists():
            self._python(HERE / 'shapes.py', 'shapes')
        self.miou('teacher', TEACHER, 0)

    def config(self, method: str) -> Path:
        """The YAML of a method."""
        options = METHODS[method]
        if options is None:
            return KD
        upgraded = self.folder / f'{method}.yaml'
        if not upgraded.exists():
            # Where the packages are that the YAML names.
            self._python('-m', 'trg_torchdistill', 'add', KD, '-o', upgraded, *options, folder=self.trainer.parent)
        return upgraded

    def miou(self, name: str, config: Path, seed: int) -> tuple[float, float]:
        """Trains unless that is done; the mean IoU in % of the best epoch, which the trainer keeps, and of the last."""
        place = self.folder / name
        if not (place / 'log.txt').exists():
            place.mkdir(exist_ok=True)
            for shared, source in (('shapes', 'shapes'), ('teacher.pt', 'teacher/teacher.pt')):
                if not (place / shared).exists() and name != Path(source).parent.name:
                    (place / shared).symlink_to(Path('..', source))
            words = ['--config', config, '--device', 'cpu', '--seed', str(seed), '--num_classes', str(NUM_CLASSES)]
            self._python(self.trainer, *map(str, words), '-student_only', '--run_log', 'running.txt', folder=place)
            (place / 'running.txt').rename(place / 'log.txt')
        found = re.findall(r'mean IoU: ([\d.]+)', (place / 'log.txt').read_text())
        return float(found[-1]), float(found[-2])

    def _python(self, *words: str | Path, folder: Path | None = None) -> None:
        paths = os.pathsep.join([str(HERE), os.environ.get('PYTHONPATH', '')])
        subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=folder or self.folder,
            env={**os.environ, 'PYTHONPATH': paths},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if folder else None,
        )


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    runs = Runs(args.checkout, args.folder)
    print('| method | best epoch | last epoch | by seed |\n|---|---|---|---|')
    for method in args.methods:
        found = [runs.miou(f'{method}-{seed}', runs.config(method), seed) for seed in args.seeds]
        columns = [_mean_and_deviation(values) for values in zip(*found, strict=True)]
        print(f'| {method} | {" | ".join(columns)} | {", ".join(f"{best:.1f}" for best, _ in found)} |', flush=True)


def _mean_and_deviation(values: tuple[float, ...]) -> str:
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


if __name__ == '__main__':
    main()
