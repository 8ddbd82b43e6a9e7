"""KD against KD + TRG on a small set of sentences, by torchdistill's own text trainer, unmodified.

    python benchmarks/tasks/text.py CHECKOUT FOLDER [--seeds 0 1 2]

CHECKOUT is a checkout of torchdistill's repository, FOLDER gets the set, the models and the logs; what is there is not
made again. The YAML with TRG is what ``trg-torchdistill add --contextual-weight 1`` writes. Needs the packages that
CHECKOUT's ``examples/hf_transformers/requirements.txt`` names; nothing is downloaded. ``--steps N`` times N steps
instead, with and without TRG in turns, in one box.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import sentences

HERE = Path(__file__).parent
METHODS = {'KD': 'kd.yaml', 'KD + TRG': 'trg.yaml'}
ACCURACY = re.compile(r'Test: accuracy = ([\d.]+)')


def main() -> None:
    """Prints the table of accuracies, or the cost of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--steps', type=int, help='time this many steps')
    args = parser.parse_args()
    args.checkout = args.checkout.resolve()
    teacher = train(args, args.folder / 'teacher', 0, 'text_teacher.yaml')[0]
    if args.steps:
        print_cost(args)
        return
    found = {name: [] for name in METHODS}
    for seed in args.seeds:
        for name, file in METHODS.items():
            folder = args.folder / f'{Path(file).stem}-{seed}'
            found[name].append(train(args, folder, seed, file)[-1])
    print(f'teacher {teacher:.2%}\n\n| method | {" | ".join(f"seed {seed}" for seed in args.seeds)} | mean |')
    print('|---' * (len(args.seeds) + 2) + '|')
    for name, values in found.items():
        print(f'| {name} | {" | ".join(f"{value:.2%}" for value in values)} | {statistics.mean(values):.2%} |')


def train(args: argparse.Namespace, folder: Path, seed: int, file: str) -> list[float]:
    """Trains in a folder, unless that was done; returns the test accuracies in its log, the student's last."""
    log = folder / 'log.txt'
    if not log.exists():
        prepare(args, folder, seed, file)
        script = args.checkout / 'examples' / 'hf_transformers' / 'text_classification.py'
        command = [sys.executable, script, '--config', file, '--seed', str(seed)]
        done = subprocess.run(command, cwd=folder, env=environment(args), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        log.write_text(done.stderr, encoding='utf-8')
    return [float(value) for value in ACCURACY.findall(log.read_text(encoding='utf-8'))]


def prepare(args: argparse.Namespace, folder: Path, seed: int, file: str) -> None:
    """Writes the set, the models and the YAML."""
    print(folder, sentences.prepare(folder, seed), file=sys.stderr)
    if file == 'text_teacher.yaml':
        (folder / file).write_text((HERE / 'configs' / file).read_text())
        return
    trained = args.folder.resolve() / 'teacher' / 'trained_teacher'
    text = (HERE / 'configs' / 'text_kd.yaml').read_text()
    (folder / 'kd.yaml').write_text(text.replace('./trained_teacher', str(trained)))
    if file == 'trg.yaml':
        add = [sys.executable, '-m', 'trg_torchdistill', 'add', 'kd.yaml', '-o', 'trg.yaml', '--contextual-weight', '1']
        subprocess.run(add, cwd=folder, env=environment(args), check=True, stdout=subprocess.DEVNULL)


def print_cost(args: argparse.Namespace) -> None:
    """Prints what ``check`` says of a step of the student."""
    folder = args.folder / 'cost'
    if not folder.exists():
        prepare(args, folder, 0, 'trg.yaml')
    words = ['check', 'trg.yaml', '--json', '--batch-size', '32', '--steps', str(args.steps)]
    command = [sys.executable, '-m', 'trg_torchdistill', *words]
    done = subprocess.run(command, cwd=folder, env=environment(args), check=True, capture_output=True, text=True)
    step = json.loads(done.stdout)['stages'][0]['step']
    print(
        f'{step["seconds"]:.4f} s, without TRG {step["without_trg"]:.4f} s: {step["seconds"] / step["without_trg"]:.2f}'
    )


def environment(args: argparse.Namespace) -> dict[str, str]:
    """Returns the variables of a process that finds the metric and the trainer's packages."""
    folders = [str(HERE), str(args.checkout / 'examples' / 'hf_transformers'), os.environ.get('PYTHONPATH')]
    path = os.pathsep.join(filter(None, folders))
    return {**os.environ, 'PYTHONPATH': path, 'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false'}


if __name__ == '__main__':
    main()
