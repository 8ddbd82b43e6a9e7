"""What the benchmarks share: interleaved timing of peers, medians and paired ratios, peak memory, tables, JSON.

All peers of a row run once each a round, and the peer that begins moves on by one each round, so that a machine which
becomes slower or faster does so for all of them. A ratio is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

Samples = dict[str, list[float]]
Peers = dict[str, Callable[[], object]]
MIB = 2**20
LOAD_AT_START = os.getloadavg()[0]
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
_clock = time.perf_counter


def use_clock(name: str) -> None:
    """Chooses what :func:`clock` reads: the time of day, or the time that this process had a core."""
    global _clock
    _clock = CLOCKS[name]


def make_parser(description: str, tables: Iterable[str]) -> argparse.ArgumentParser:
    """Returns a parser of the table's name and of the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('table', choices=list(tables))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    parser.add_argument(
        '--clock', choices=CLOCKS, default='wall', help='cpu: time of this process, for a busy machine and --threads 1'
    )
    parser.add_argument('--repeats', type=int, help='rounds; every peer runs once or more in each')
    parser.add_argument('--sizes', help='sizes in place of the default ones, such as 1024x128,4096x512')
    parser.add_argument('--smoke', action='store_true', help='tiny sizes, two rounds: shows that the script runs')
    parser.add_argument('--json', type=Path, help='file for the results with every sample')
    return parser


def parse_sizes(text: str | None, default: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Reads '1024x128,4096x512' as [(1024, 128), (4096, 512)]."""
    return default if not text else [tuple(int(part) for part in size.split('x')) for size in text.split(',')]


def clock(call: Callable[[], object], device: str, count: int = 1) -> float:
    """Returns the seconds of one call, the mean of ``count``; on CUDA the work is waited for."""
    begin = _clock()
    for _ in range(count):
        call()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
    return (_clock() - begin) / count


def interleave(peers: Peers, rounds: int, device: str = 'cpu', shortest: float = 0.02, warmups: int = 2) -> Samples:
    """Times peers in round-robin order: seconds of one call for each peer and round.

    Args:
        peers: Calls by name.
        rounds: Rounds.
        device: Device of the work.
        shortest: Seconds that one sample lasts at least, by repeating a short call.
        warmups: Calls before the first round; the last one tells how often a short call is repeated.
    """
    counts = {}
    for name, call in peers.items():
        seconds = [clock(call, device) for _ in range(warmups)]
        counts[name] = min(1000, max(1, math.ceil(shortest / seconds[-1]))) if seconds else 1
    samples: Samples = {name: [] for name in peers}
    names = list(peers)
    for turn in range(rounds):
        gc.collect()
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            samples[name].append(clock(peers[name], device, counts[name]))
    return samples


def spread(values: list[float]) -> dict[str, float]:
    """Returns the median, minimum and quartiles."""
    first, _, third = statistics.quantiles(values, n=4, method='inclusive')
    return {'median': statistics.median(values), 'min': min(values), 'q1': first, 'q3': third}


def make_row(size: dict[str, Any], samples: Samples, reference: str, **more: Any) -> dict[str, Any]:
    """Returns a row of a table: seconds of each peer and its ratio to the ``reference``, within each round."""
    peers = {}
    for name, seconds in samples.items():
        ratios = [mine / other for mine, other in zip(seconds, samples[reference], strict=True)]
        peers[name] = {
            'seconds': spread(seconds),
            'ratio': {**spread(ratios), 'of_minima': min(seconds) / min(samples[reference])},
            'samples': seconds,
        }
    return {'size': size, 'reference': reference, 'rounds': len(samples[reference]), 'peers': peers, **more}


def add_bar(row: dict[str, Any], text: str, value: float, limit: float, at_least: bool = False) -> None:
    """Adds to a row a bar: at most, or at least, ``limit``."""
    met = value >= limit if at_least else value <= limit
    row.setdefault('bars', []).append({'text': text, 'value': value, 'limit': limit, 'met': met})


def describe_bar(bar: dict[str, Any]) -> str:
    """Returns a bar and its outcome in one line."""
    return f'{"met   " if bar["met"] else "MISSED"} {bar["text"]}: {bar["value"]:.2f} (bar {bar["limit"]:g})'


def print_row(row: dict[str, Any], header: bool) -> None:
    """Prints a row as lines of a Markdown table, one a peer, and then its bars."""
    if header:
        print('| size | peer | median ms (quartiles) | min ms | ratio (quartiles) | to |')
        print('|---|---|---|---|---|---|')
    size = ' '.join(f'{key}={value}' for key, value in row['size'].items())
    for name, peer in row['peers'].items():
        ms = {key: 1000 * value for key, value in peer['seconds'].items()}
        ratio = peer['ratio']
        print(
            f'| {size} | {name} | {ms["median"]:.4g} ({ms["q1"]:.4g}-{ms["q3"]:.4g}) | {ms["min"]:.4g} | '
            f'{ratio["median"]:.3f} ({ratio["q1"]:.3f}-{ratio["q3"]:.3f}) | {row["reference"]} |',
            flush=True,
        )
    for bar in row.get('bars', []):
        print(f'<!-- {describe_bar(bar)} -->', flush=True)


def peak_bytes(device: str = 'cpu') -> int:
    """Returns the most memory used since :func:`reset_peak`: the allocator's on a GPU, else the resident set."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(device: str = 'cpu') -> None:
    """Sets the peak to what is in use now; that of the resident set only where the kernel allows it."""
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    except OSError:
        return


def fit_exponent(sizes: list[int], growths: list[int]) -> float:
    """Slope of log growth over log M, by least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, growths))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def describe_machine(device: str) -> dict[str, Any]:
    """Returns the class of machine (no name of it), the threads and the versions."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        cpu = next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    cuda = torch.device(device).type == 'cuda'
    return {
        'cpu': cpu,
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name(device) if cuda else 'cpu',
        'torch': torch.__version__,
        'python': platform.python_version(),
    }


def finish(arguments: argparse.Namespace, rows: list[dict[str, Any]], **more: Any) -> None:
    """Prints the machine and writes the JSON."""
    script = os.path.relpath(sys.argv[0], Path(__file__).parent)
    given = [text for text in sys.argv[1:] if text != '--json' and text != str(arguments.json)]
    result = {
        'command': shlex.join(['python', f'benchmarks/{script}', *given]),
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'clock': arguments.clock,
        'load_before_and_after': [LOAD_AT_START, os.getloadavg()[0]],
        'machine': describe_machine(arguments.device),
        'rows': rows,
        **more,
    }
    print(f'<!-- {result["command"]}; {result["date"]}; {result["machine"]} -->')
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
