"""What lasts, resumable: python benchmarks/accuracy/lasting.py STAGE --settings SETTING... --data DATA --out OUT.

teacher: trains the teacher of `cnn_lt` and `vit_lt` on their long tail; those of the others are trained by `grid.py`.
weights: trains KD for a tenth of the reference schedule and measures, at the best epoch of these, by how much each
    method's terms pull at the student; the weights at which that is a SHARE of what ``KDLoss`` does go into
    ``--weights``, a line a method.
run: each method with the weights of each share, every number of epochs and every seed, and notes the accuracy on test/.

DATA, OUT and the notes of finished runs are as those of ``grid.py``; a run is named by setting, method, weights, epochs
and seed. The teacher's share of the time is paid once with ``--teacher_views``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from ablations import Variant
from config import Run, make_config
from gradients import CPU, measure
from grid import FOLDER, Grid, _commit
from methods import METHODS, Weights
from recipes import LASTING
from tables import read_notes

from trg_torchdistill.cli.probe.build import build_box, build_with_weights
from trg_torchdistill.cli.recipe.config import import_packages, load_config

KD = (0.1, 4.0)
REFERENCE_EPOCHS = 36
SHARES = (0.1, 0.3, 1.0)
CONTROL = '_others'
WRAPPED = 'srd'  # has a layer of its own on the teacher


def _local(**options: Any) -> Variant:
    return Variant(method='kd+local', trg=options)


def _soft(**options: Any) -> Variant:
    return Variant(method='kd+global', trg={'global_targets': 'teacher', 'temperature': 0.1, **options})


def _proportional(**options: Any) -> Variant:
    return _local(row_distribution='proportional', sigma=0.1, local_reduction='mean', **options)


# `proportional` is local structure preserving of graph KD, `complete` the in-batch term of CIRKD.
CANDIDATES = {
    'kd': Variant(method='kd'),
    'literal': Variant(method='kd+trg'),
    'literal_half': Variant(method='kd+trg', falls_until=0.5),
    'literal_end': Variant(method='kd+trg', falls_until=1.0),
    'local': _local(),
    'edges_teacher': _local(edges='teacher'),
    'edges_union': _local(edges='union'),
    'proportional': _proportional(edges='teacher'),
    'complete': _proportional(num_neighbors=None),
    'soft': _soft(),
    'soft_queue': _soft(queue_size=4096),
    'contextual': Variant(method='kd+contextual', contextual={'normalize_tokens': True, 'temperature': 0.1}),
    **{name: Variant(method=f'kd+{name}') for name in ('at', 'spkd', 'pkt', 'srd', 'dist')},
}
# The same weights with a teacher of other images.
CONTROLS = {
    f'{name}{CONTROL}': replace(variant, loss='TRGLossOfOtherImages')
    for name, variant in CANDIDATES.items()
    if {'local', 'global'} & set(METHODS[variant.method].terms)
}
VARIANTS = CANDIDATES | CONTROLS


class Lasting(Grid):
    """Runs what is not noted yet in one setting.

    Args:
        options: The command line.
    """

    recipes = LASTING

    def plan(self) -> list[Run]:
        """The runs of the stage, in the order of their start."""
        if self.options.stage == 'teacher':
            return [Run(self.options.recipe, 'teacher', cycle) for cycle in range(len(self.recipe.teacher_cycles))]
        self.require_teacher()
        return [
            self._planned(name, seed, weights, epochs)
            for epochs in self.options.epochs or self.recipe.schedules
            for seed in self.options.seeds
            for name in self.options.methods
            for weights in self._weights(name)
        ]

    def flags(self, run: Run) -> list[str]:
        """Further words of the command line: what a plain teacher says of the images may be stored."""
        if not self.options.teacher_views or run.method in ('teacher', WRAPPED):
            return super().flags(run)
        folder = self.options.views_dir / self.options.recipe
        return [*super().flags(run), '--teacher_views', str(self.options.teacher_views), '--views_dir', str(folder)]

    def weigh(self) -> int:
        """Measures the methods after a tenth of KD's training, and returns the number of failures."""
        self.require_teacher()
        tenth = max(1, round(self.options.reference / 10))
        run = self._planned('kd', self.options.seeds[0], KD, self.options.reference, tenth)
        if not self._train(run):
            return 1
        student = torch.load(self.options.out / run.name / 'best.pt', map_location='cpu', weights_only=True)['model']
        for name in self.options.methods:
            if name in CANDIDATES.keys() - {'kd', *self._measured()}:
                line = {'setting': self.options.recipe, 'method': name, 'weights': self._shared(name, student, tenth)}
                line |= {'epochs': [tenth, self.options.reference], 'commit': _commit()}
                line |= {'date': datetime.now(timezone.utc).isoformat(timespec='seconds')}
                with self.options.weights.open('a', encoding='utf-8') as stream:
                    stream.write(json.dumps(line) + '\n')
        return 0

    def _shared(self, name: str, student: dict[str, Any], tenth: int) -> dict[str, Weights]:
        """The weights of each share; of several terms each takes an equal part of it."""
        ones = (1.0,) * max(1, len(METHODS[VARIANTS[name].method].terms))
        run = self._planned(name, 0, ones, self.options.reference)
        folder = self.options.out / 'weights'
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f'{run.name}.yaml'
        text = make_config(run, self.recipe, self.source, self.teacher, folder, self._num_steps(run))
        file.write_text(text, encoding='utf-8')
        config = load_config(str(file))
        import_packages(config)
        torch.manual_seed(0)
        models = [build_with_weights(config, path)[0] for path in (config.teacher_path, config.student_path) if path]
        models[-1].load_state_dict(student)
        box = build_box(config, *models, CPU)
        box.pre_epoch_process(epoch=tenth)
        pulls = [statistics.mean(norm for norm, _ in each) for each in measure(box, models[-1]).values()]
        print(f'{run.name}: gradient {", ".join(f"{pull:.3g}" for pull in pulls)} of that of KDLoss', flush=True)
        shared = {share: tuple(float(f'{share / len(pulls) / pull:.2g}') for pull in pulls) for share in SHARES}
        return {f'{share:g}': weights for share, weights in shared.items()}

    def _measured(self) -> dict[str, dict[str, list[float]]]:
        """The weights of each share, by method."""
        lines = read_notes(self.options.weights) if self.options.weights.exists() else []
        return {line['method']: line['weights'] for line in lines if line['setting'] == self.options.recipe}

    def _weights(self, name: str) -> list[Weights]:
        """The weights of a method at the shares of the command line."""
        if name == 'kd':
            return [KD]
        known = self._measured().get(name.removesuffix(CONTROL))
        if known is None:
            raise SystemExit(
                f'expected the weights of {name} in {self.options.weights}; run `lasting.py weights` first'
            )
        return [tuple(known[f'{share:g}']) for share in self.options.shares]

    def _planned(self, name: str, seed: int, weights: Weights, epochs: int, stop: int | None = None) -> Run:
        value = f'{epochs}' if stop is None else f'first {stop} of {epochs}'
        variant = replace(VARIANTS[name], axis='epochs', value=value, epochs=epochs, stop=stop)
        return Run(self.options.recipe, name, seed, weights, () if name == 'kd' else KD, variant)

    def _note(self, run: Run, folder: Path, text: str) -> None:
        if self.options.stage != 'weights':
            super()._note(run, folder, text)


def main() -> None:
    """Runs one stage of each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = FOLDER / 'results'
    parser.add_argument('stage', choices=['teacher', 'weights', 'run'])
    parser.add_argument('--settings', nargs='+', choices=list(LASTING), required=True)
    parser.add_argument('--data', type=Path, required=True, help='folder made by prepare.py')
    parser.add_argument('--out', type=Path, required=True, help='folder for the runs')
    parser.add_argument('--lines', type=Path, default=results / 'lasting.jsonl', help='notes of finished runs')
    parser.add_argument('--weights', type=Path, default=results / 'lasting_weights.jsonl', help='weights by share')
    parser.add_argument('--methods', nargs='+', choices=list(VARIANTS), default=list(CANDIDATES))
    parser.add_argument('--shares', nargs='+', type=float, choices=SHARES, default=SHARES)
    parser.add_argument('--epochs', nargs='+', type=int, help='default: the schedules of the setting')
    parser.add_argument('--reference', type=int, default=REFERENCE_EPOCHS, help='schedule whose tenth `weights` trains')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--teacher_views', type=int, help='store the teacher for that many views of each image')
    parser.add_argument('--views_dir', type=Path, help='folder for those of each setting, default: OUT/views')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each training')
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.views_dir = (options.views_dir or options.out / 'views').resolve()
    failures = 0
    for setting in options.settings:
        options.recipe = setting
        grid = Lasting(options)
        failures += grid.weigh() if options.stage == 'weights' else grid.execute()
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
