"""The accuracy grid, resumable: python benchmarks/accuracy/grid.py STAGE --data DATA --out OUT.

teacher: trains the teacher on the whole training part, and puts its weights beside the notes.
tune: each method with each of its candidate weights, one seed of its own, and notes the accuracy on val/.
run: each method with the weights that did best on val/, every seed, and notes the accuracy on test/.
ablate: our methods with one thing changed at a time, and KD, every seed + 100, and notes the accuracy on val/.
tables: writes the tables and the pictures of ``docs/short.md`` from the notes.

DATA is a folder made by ``prepare.py``; OUT gets a folder for each run. A finished run is one line of JSON in
``--lines``; what stands there is not run again, and what was stopped on the way goes on after its last epoch. Every run
is ``trg-torchdistill train`` on a YAML of its own, ``--workers`` at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from _timing import describe_machine
from ablations import AXES, VARIANTS, Variant
from arrays import decode
from config import SETTINGS, Run, Source, make_config
from figures import draw_ablations, draw_results
from methods import METHODS, Weights
from recipes import RECIPES
from tables import ABLATION_STAGES, read_notes, write_note, write_tables

FOLDER = Path(__file__).resolve().parent
DOCUMENT = FOLDER.parents[1] / 'docs' / 'short.md'
TUNING_SEED = 100


class Grid:
    """Runs what is not noted yet.

    Args:
        options: The command line.
    """

    recipes = RECIPES

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.recipe = self.recipes[options.recipe]
        self.methods = {**METHODS, **self.recipe.methods}
        self.teacher = options.lines.with_name(f'{self.recipe.teacher or options.recipe}-teacher.pt')
        self.source = Source(options.data, self.recipe.num_workers, options.device if self.recipe.in_memory else None)

    def notes(self) -> list[dict[str, Any]]:
        """The lines of this recipe so far."""
        if not self.options.lines.exists():
            return []
        return [line for line in read_notes(self.options.lines) if line['recipe'] == self.options.recipe]

    def best(self, setting: str, method: str) -> Weights:
        """The candidate of a method that did best on val/.

        Raises:
            SystemExit: If it has not been tuned.
        """
        tuned = self._tuned(setting, method)
        missing = self.methods[method].untried(tuned)
        if missing:
            raise SystemExit(
                f'expected {method} on {setting} to be tuned, no note of {missing}; run `grid.py tune` first'
            )
        return self.methods[method].best(tuned)

    def _tuned(self, setting: str, method: str) -> dict[Weights, float]:
        """Accuracy on val/ of the weights that were tried."""
        return self.methods[method].tuned([line for line in self.notes() if line['setting'] == setting])

    def plan(self) -> list[Run]:
        """The runs of the stage, in the order of their start."""
        stage = self.options.stage
        if stage == 'teacher':
            return [Run('whole', 'teacher', cycle) for cycle in range(len(self.recipe.teacher_cycles))]
        self.require_teacher()
        return {'tune': self._tunings, 'run': self._finals, 'ablate': self._ablations}[stage]()

    def require_teacher(self) -> None:
        """Raises SystemExit unless there are weights of the teacher."""
        if not self.teacher.exists():
            command = Path(sys.argv[0]).name
            raise SystemExit(f'expected the weights of the teacher in {self.teacher}; run `{command} teacher` first')

    def flags(self, run: Run) -> list[str]:
        """Further words of the command line of a training."""
        return list(self.recipe.flags)

    def _tunings(self) -> list[Run]:
        """The candidates of KD, and once these are done those of the other methods beside the best of them."""
        settings, kd = self.options.settings, self.methods['kd'].candidates
        first = [self._run(setting, 'kd', TUNING_SEED, weights) for setting in settings for weights in kd]
        if len(kd) > 1 and not all(self._is_noted(run) for run in first):
            return first
        return first + [
            self._run(setting, name, TUNING_SEED, weights)
            for setting in settings
            for name in self.options.methods
            if name != 'kd'
            for weights in self.methods[name].untried(self._tuned(setting, name))
        ]

    def _finals(self) -> list[Run]:
        return [
            self._run(setting, name, seed, self.best(setting, name))
            for seed in self.options.seeds
            for setting in self.options.settings
            for name in dict.fromkeys(['kd', *self.options.methods])
        ]

    def _ablations(self) -> list[Run]:
        axes, methods = self.options.axes, self.options.methods
        changes = [variant for variant in VARIANTS if variant.axis in axes and variant.method in methods]
        plain = [Variant(method=name) for name in dict.fromkeys(['kd', *(each.method for each in changes)])]
        runs = [
            self._ablated(setting, TUNING_SEED + seed, variant)
            for seed in self.options.seeds
            for setting in self.options.settings
            for variant in (*plain, *changes)
        ]
        return list({(run.name, run.kd): run for run in runs}.values())  # weights of a change may be the tuned ones

    def _run(self, setting: str, method: str, seed: int, weights: Weights) -> Run:
        kd = () if method in ('student', 'kd') else self.best(setting, 'kd')
        return Run(setting, method, seed, weights, kd)

    def _ablated(self, setting: str, seed: int, variant: Variant) -> Run:
        weights = variant.weights or self.best(setting, variant.method)
        run = self._run(setting, variant.method, seed, weights)
        return replace(run, kd=variant.kd or run.kd, variant=variant)

    def _is_noted(self, run: Run) -> bool:
        stages = ABLATION_STAGES if self.options.stage == 'ablate' else (self.options.stage,)
        return any(
            line['stage'] in stages and (line['run'], tuple(line['kd'])) == (run.name, run.kd) for line in self.notes()
        )

    def decode(self) -> None:
        """Decodes the images that the device is to hold."""
        for split in ('train', 'val', 'test') if self.recipe.in_memory else ():
            decode(self.options.data / split)

    def execute(self) -> int:
        """Runs the stage and returns the number of failures."""
        failures = 0
        self.decode()
        if all(self._is_noted(run) for run in self.plan()):
            print(f'{self.options.stage}: nothing to do, all of these runs are in {self.options.lines}', flush=True)
        while todo := [run for run in self.plan() if not self._is_noted(run)]:
            print(f'{self.options.stage}: {len(todo)} runs to do', flush=True)
            workers = 1 if self.options.stage == 'teacher' else self.options.workers
            with ThreadPoolExecutor(workers) as pool:
                futures = {pool.submit(self._train, run): run for run in todo}
                for future in as_completed(futures):
                    failures += not future.result()
            if failures or self.options.stage != 'tune':
                break
        return failures

    def _train(self, run: Run) -> bool:
        """Trains one student, and notes it; says where to look if that fails."""
        if self._is_noted(run):  # by another grid since the plan was made
            return True
        folder = self.options.out / run.name
        folder.mkdir(parents=True, exist_ok=True)
        text = make_config(run, self.recipe, self.source, self.teacher, folder, self._num_steps(run))
        config = folder / 'config.yaml'
        goes_on = (folder / 'last.pt').exists() and config.read_text(encoding='utf-8') == text
        config.write_text(text, encoding='utf-8')
        command = [sys.executable, '-m', 'trg_torchdistill', 'train', str(config)]
        command += ['--resume' if goes_on else '--overwrite', '--run_dir', str(folder), '-student_only']
        command += ['--seed', str(run.seed), '--device', self.options.device, *self.flags(run)]
        threads = str(self.options.threads)
        paths = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get('PYTHONPATH')]))
        environment = {**os.environ, 'OMP_NUM_THREADS': threads, 'OMP_WAIT_POLICY': 'PASSIVE', 'PYTHONPATH': paths}
        with (folder / 'log.txt').open('w', encoding='utf-8') as log:
            code = self._call(run, command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        if code:
            print(f'FAILED {run.name}, exit code {code}; see {folder}/log.txt', flush=True)
            return False
        if run.method == 'teacher':
            weights = torch.load(folder / 'best.pt', map_location='cpu', weights_only=True)['model']
            half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
            torch.save({'model': half}, self.teacher)
        self._note(run, folder, text)
        return True

    def _call(self, run: Run, command: list[str], **options: Any) -> int:
        """Trains, and returns the exit code."""
        return subprocess.run(command, **options).returncode

    def _note(self, run: Run, folder: Path, text: str, **more: Any) -> None:
        epochs = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
        portable = text
        for path in (folder, self.options.data, self.teacher):
            portable = portable.replace(str(path), '')
        line: dict[str, Any] = {
            'stage': self.options.stage,
            'recipe': self.options.recipe,
            'setting': run.setting,
            'method': run.method,
            'seed': run.seed,
            'weights': run.weights,
            'kd': run.kd,
            'run': run.name,
            'val_top1': max(epoch['val_top1'] for epoch in epochs),
            'epochs': len(epochs),
            'val_top1s': [epoch['val_top1'] for epoch in epochs],
            'train_loss': epochs[-1]['loss'],
            'minutes': sum(sum(epoch['seconds'].values()) for epoch in epochs) / 60,
            'variant': run.variant.name,
            'config_sha256': _sha256(portable.encode()),
            'teacher_sha256': _sha256(self.teacher.read_bytes()),
            'commit': _commit(),
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'machine': {**describe_machine(self.options.device), 'threads': self.options.threads},
        }
        if self.options.stage in ('teacher', 'run') and not more:
            test = json.loads((folder / 'test.json').read_text(encoding='utf-8'))['test']
            line |= {'test_top1': test['top1'], 'test_per_class': test['per_class'], 'groups': test.get('groups')}
        write_note(self.options.lines, line | more)
        shown = line.get('test_top1', line['val_top1'])
        print(f'{run.name}: {shown:.2f} ({line["minutes"]:.1f} min)', flush=True)

    def _num_steps(self, run: Run) -> int:
        subset = SETTINGS[run.setting]
        counts = [len(os.listdir(path)) for path in sorted((self.options.data / 'train').iterdir())]
        if subset is None:
            total = sum(counts)
        elif 'num_samples' in subset:
            total = subset['num_samples']
        else:
            last = len(counts) - 1
            total = sum(
                int(min(counts) * subset['imbalance'] ** (-label / last) + 1e-6) for label in range(len(counts))
            )
        return total // run.batch_size(self.recipe)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _commit() -> str:
    """The commit, marked when something else than results differs from it."""
    described = _git('describe', '--always', '--abbrev=10') or 'unknown'
    changed = _git('status', '--porcelain', '--untracked-files=no', '--', ':/', ':!/docs', ':!results')
    return f'{described}-dirty' if changed else described


def _git(*words: str) -> str:
    return subprocess.run(['git', *words], cwd=FOLDER, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Runs one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('stage', choices=['teacher', 'tune', 'run', 'ablate', 'tables'])
    parser.add_argument('--data', type=Path, help='folder made by prepare.py')
    parser.add_argument('--out', type=Path, help='folder for the runs')
    parser.add_argument('--lines', type=Path, default=FOLDER / 'results' / 'lines.jsonl', help='notes of finished runs')
    parser.add_argument('--recipe', choices=list(RECIPES), default='cpu')
    parser.add_argument('--settings', nargs='+', choices=list(SETTINGS), default=['balanced', 'longtailed'])
    parser.add_argument('--methods', nargs='+', choices=list(METHODS), default=list(METHODS))
    parser.add_argument('--axes', nargs='+', choices=AXES, default=AXES, help='what `ablate` changes')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each training')
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args()
    if options.stage == 'tables':
        notes = read_notes(options.lines)
        write_tables(notes, DOCUMENT)
        for name, draw in (('accuracy', draw_results), ('ablations', draw_ablations)):
            draw(notes, options.recipe, DOCUMENT.parent / 'images' / f'{name}-{options.recipe}')
        return
    if options.data is None or options.out is None:
        parser.error('`--data` and `--out` are needed to train')
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.lines.parent.mkdir(parents=True, exist_ok=True)
    sys.exit(1 if Grid(options).execute() else 0)


if __name__ == '__main__':
    main()
