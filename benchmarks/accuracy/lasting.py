"""What lasts, resumable: python benchmarks/accuracy/lasting.py STAGE --settings SETTING... --data DATA --out OUT.

teacher: trains the teacher of the settings that have one of their own; that of the small ones is trained by `grid.py`.
weights: trains KD for a tenth of the reference schedule and measures, at the best epoch of these and before the first,
    by how much each method's terms pull at the student; the weights at which that is a SHARE of what ``KDLoss`` does
    go into ``--weights``, a line a method.
run: each method with the weights of each share, every number of epochs and every seed, and notes the accuracy on test/.
measure: looks at what `run` left in OUT, and writes a line a run into ``--measures``: what `measures.py` says.

DATA, OUT and the notes of finished runs are as those of ``grid.py``; a run is named by setting, method, weights, epochs
and seed. The teacher's share of the time is paid once with ``--teacher_views``. METHODS are named by `candidates.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from candidates import CANDIDATES, CONTROL, KD, method, terms_of, variant_named
from config import Run, make_config
from gradients import measure
from grid import FOLDER, Grid, _commit
from measures import Measures
from methods import Weights
from recipes import LASTING
from tables import Notes, read_notes, write_note
from threadpoolctl import threadpool_limits

from trg_torchdistill.cli.probe.build import build_box, build_with_weights
from trg_torchdistill.cli.recipe.config import import_packages, load_config
from trg_torchdistill.cli.runtime.placement import Placement

SHARES = (0.1, 0.3, 1.0)
WRAPPED = 'kd+srd'  # has a layer of its own on the teacher
SECONDS_BETWEEN_LOOKS = 5.0


class DroppedError(Exception):
    """The training was ended, as it is so many points behind."""

    def __init__(self, points: float) -> None:
        super().__init__(points)
        self.points = points


class Lasting(Grid):
    """Runs what is not noted yet in one setting.

    Args:
        options: The command line.
    """

    recipes = LASTING

    def notes(self) -> Notes:
        """The notes of finished runs, and with ``--drop`` of those that were ended."""
        return [note for note in super().notes() if self.options.drop is not None or 'dropped' not in note]

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
        if not self.options.teacher_views or run.method == 'teacher' or run.variant.method == WRAPPED:
            return super().flags(run)
        folder = self.options.views_dir / self.options.recipe
        return [*super().flags(run), '--teacher_views', str(self.options.teacher_views), '--views_dir', str(folder)]

    def weigh(self) -> int:
        """Measures the methods after a tenth of KD's training, and returns the number of failures."""
        self.require_teacher()
        self.decode()
        reference = self.options.reference or self.recipe.epochs
        tenth = max(1, round(reference / 10))
        run = self._planned('kd', self.options.seeds[0], KD['KDLoss'], reference, tenth)
        if not self._train(run):
            return 1
        student = torch.load(self.options.out / run.name / 'best.pt', map_location='cpu', weights_only=True)['model']
        known = self._measured()
        for name in dict.fromkeys(name.removesuffix(CONTROL) for name in self.options.methods):
            if variant_named(name).method != 'kd' and name not in known:
                line = {'setting': self.options.recipe, 'method': name}
                line['weights'] = self._shared(name, student, tenth, reference)
                line['at_start'] = self._shared(name, None, 0, reference)
                write_note(self.options.weights, line | {'epochs': [tenth, reference], **_now()})
        return 0

    def measure(self) -> None:
        """Measures the teacher and the finished runs in OUT that are not measured yet."""
        self.require_teacher()
        file = self.options.measures
        done = {(line['setting'], line['run']) for line in (read_notes(file) if file.exists() else [])}
        measures = Measures(self.options.recipe, self.recipe, self.teacher, self.options)
        found = {'teacher': measures.of_teacher}
        for note in self.notes():
            folder = self.options.out / note['run']
            if note['stage'] == 'run' and (folder / 'last.pt').exists():
                found[note['run']] = partial(measures.of_run, folder)
        for name, look in found.items():
            if (self.options.recipe, name) not in done:
                write_note(file, {'setting': self.options.recipe, 'run': name, **look(), **_now()})
                print(f'{self.options.recipe}: {name} measured', flush=True)

    def _shared(self, name: str, student: dict[str, Any] | None, epoch: int, reference: int) -> dict[str, Weights]:
        """The weights of each share, of a new student or a trained one; of several terms each takes an equal part."""
        ones = (1.0,) * max(1, len(terms_of(variant_named(name))))
        run = self._planned(name, 0, ones, reference)
        folder = self.options.out / 'weights'
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f'{run.name}.yaml'
        text = make_config(run, self.recipe, self.source, self.teacher, folder, self._num_steps(run))
        file.write_text(text, encoding='utf-8')
        config = load_config(str(file))
        import_packages(config)
        torch.manual_seed(0)
        models = [build_with_weights(config, path)[0] for path in (config.teacher_path, config.student_path) if path]
        if student is not None:
            models[-1].load_state_dict(student)
        device = torch.device(self.options.device)
        box = build_box(config, *(model.to(device) for model in models), Placement(device))
        box.pre_epoch_process(epoch=epoch)
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
        variant = variant_named(name)
        if variant.method == 'kd':
            return [KD[variant.base]]
        known = self._measured().get(name.removesuffix(CONTROL))
        if known is None:
            raise SystemExit(
                f'expected the weights of {name} in {self.options.weights}; run `lasting.py weights` first'
            )
        return [tuple(known[f'{share:g}']) for share in self.options.shares]

    def _planned(self, name: str, seed: int, weights: Weights, epochs: int, stop: int | None = None) -> Run:
        value = f'{epochs}' if stop is None else f'first {stop} of {epochs}'
        variant = replace(variant_named(name), axis='epochs', value=value, epochs=epochs, stop=stop)
        kd = () if variant.method == 'kd' else KD[variant.base]
        return Run(self.options.recipe, name, seed, weights, kd, variant)

    def _train(self, run: Run) -> bool:
        try:
            return super()._train(run)
        except DroppedError as dropped:
            folder = self.options.out / run.name
            text = (folder / 'config.yaml').read_text(encoding='utf-8')
            self._note(run, folder, text, dropped=round(dropped.points, 2))
            return True

    def _call(self, run: Run, command: list[str], **options: Any) -> int:
        if self.options.stage != 'run' or self.options.drop is None or run.variant.method == 'kd':
            return super()._call(run, command, **options)
        if '--overwrite' in command:  # the epochs of another configuration are no half time of this one
            (self.options.out / run.name / 'metrics.jsonl').unlink(missing_ok=True)
        return watched(command, partial(self._behind, run), self.options.drop, **options)

    def _behind(self, run: Run) -> float:
        """By how many points the best epoch of the first half is behind that of KD with the same seed, 0 if unknown."""
        epochs, metrics = run.variant.epochs or 0, self.options.out / run.name / 'metrics.jsonl'
        kd = self._planned('kd', run.seed, KD['KDLoss'], epochs).name
        finished = [note['val_top1s'] for note in self.notes() if (note['stage'], note['run']) == ('run', kd)]
        lines = metrics.read_text(encoding='utf-8').splitlines() if finished and metrics.exists() else []
        if not 0 < epochs // 2 <= len(lines) < epochs:
            return 0.0
        best = max(json.loads(line)['val_top1'] for line in lines[: epochs // 2])
        return float(max(finished[0][: epochs // 2]) - best)

    def _note(self, run: Run, folder: Path, text: str, **more: Any) -> None:
        if self.options.stage != 'weights':
            super()._note(run, folder, text, **more)


def watched(command: list[str], behind: Callable[[], float], allowed: float, **options: Any) -> int:
    """Runs a command, and returns its exit code.

    Args:
        command: The command.
        behind: Returns by how many points it is behind.
        allowed: So many points end it.
        **options: Those of ``subprocess.Popen``.

    Raises:
        DroppedError: If it was ended.
    """
    with subprocess.Popen(command, **options) as process:
        while True:
            try:
                return process.wait(SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                points = behind()
            if points >= allowed:
                process.terminate()
                process.wait()
                raise DroppedError(points)


def _now() -> dict[str, str]:
    return {'commit': _commit(), 'date': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def main() -> None:
    """Runs one stage of each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = FOLDER / 'results'
    parser.add_argument('stage', choices=['teacher', 'weights', 'run', 'measure'])
    parser.add_argument('--settings', nargs='+', choices=list(LASTING), required=True)
    parser.add_argument('--data', type=Path, required=True, help='folder made by prepare.py')
    parser.add_argument('--out', type=Path, required=True, help='folder for the runs')
    parser.add_argument('--lines', type=Path, default=results / 'lasting.jsonl', help='notes of finished runs')
    parser.add_argument('--weights', type=Path, default=results / 'lasting_weights.jsonl', help='weights by share')
    parser.add_argument('--measures', type=Path, default=results / 'lasting_measures.jsonl', help='what they are worth')
    parser.add_argument('--methods', nargs='+', type=method, default=list(CANDIDATES), help='see candidates.py')
    parser.add_argument('--shares', nargs='+', type=float, choices=SHARES, default=SHARES)
    parser.add_argument('--epochs', nargs='+', type=int, help='default: the schedules of the setting')
    parser.add_argument('--reference', type=int, help='schedule whose tenth `weights` trains, default: of the setting')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--drop', type=float, help='end what is so many points behind KD on val/ at half time')
    parser.add_argument('--teacher_views', type=int, help='store the teacher for that many views of each image')
    parser.add_argument('--views_dir', type=Path, help='folder for those of each setting, default: OUT/views')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each training, and of `measure`')
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.views_dir = (options.views_dir or options.out / 'views').resolve()
    options.lines.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    for setting in options.settings:
        options.recipe = setting
        grid = Lasting(options)
        if options.stage == 'measure':
            with threadpool_limits(options.threads):
                grid.measure()
        else:
            failures += grid.weigh() if options.stage == 'weights' else grid.execute()
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
