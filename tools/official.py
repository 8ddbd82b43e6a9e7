"""Makes an entry of ``configs/official`` from a finished run: ``tools/official.py RUN_DIR TARGET --lines FILE``.

TARGET, such as ``configs/official/cifar10/vit_kd``, gets three files. ``.yaml`` is the run's YAML without paths of the
machine; it finds the images that ``benchmarks/accuracy/prepare.py`` splits under ``resource/dataset/cifar10_images``.
``.pt`` is the state dict of the best weights, in float32 or, where these are over 1 MB, in half precision. ``.jsonl``
has the metrics of each epoch, and in its last line the note of the run from FILE. The row of
``configs/official/README.md`` is printed; what the run is, you say.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path
from typing import Any

import torch

LARGEST = 1_000_000
IMAGES = './resource/dataset/cifar10_images'
OF_THE_MACHINE = ('seconds', 'images_per_second')
OF_THE_NOTE = ('run', 'seed', 'commit', 'date', 'machine', 'minutes', 'val_top1', 'test_top1', 'test_per_class')


def portable(text: str, name: str) -> str:
    """Returns the text of a YAML whose paths are those of a checkout.

    Raises:
        SystemExit: If a path of the machine is left.
    """
    text = re.sub(r'(root: )\S+/(train|val|test)$', rf'\1{IMAGES}/\2', text, flags=re.MULTILINE)
    text = re.sub(r'(src_ckpt: )\S+/(benchmarks/\S+)$', r'\1./\2', text, flags=re.MULTILINE)
    text = re.sub(r'(dst_ckpt: )/\S+$', rf'\1./resource/ckpt/official/{name}.pt', text, flags=re.MULTILINE)
    left = re.findall(r'^.*[\s\'"]/\S.*$', text, flags=re.MULTILINE)
    if left:
        raise SystemExit(f'expected a YAML with paths of a checkout alone, got {left}')
    return text


def weights(state: dict[str, torch.Tensor]) -> bytes:
    """Returns the file of a state dict, in the widest dtype that keeps it small.

    Raises:
        SystemExit: If half precision is not small enough.
    """
    for dtype in (torch.float32, torch.float16):
        stream = io.BytesIO()
        torch.save({name: each.to(dtype) if each.is_floating_point() else each for name, each in state.items()}, stream)
        if stream.tell() <= LARGEST:
            return stream.getvalue()
    raise SystemExit(f'expected weights of at most {LARGEST} bytes, got {stream.tell()} in half precision')


def log(metrics: str, note: dict[str, Any]) -> str:
    """Returns the lines of a log: what each epoch measured but its times, then the run."""
    epochs = [json.loads(line) for line in metrics.splitlines()]
    lines = [{key: value for key, value in epoch.items() if key not in OF_THE_MACHINE} for epoch in epochs]
    return ''.join(json.dumps(line) + '\n' for line in [*lines, {key: note[key] for key in OF_THE_NOTE if key in note}])


def main() -> None:
    """Writes the three files of an entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run_dir', type=Path, help='finished run: config.yaml, metrics.jsonl and best.pt')
    parser.add_argument('target', type=Path, help='the entry, without a suffix')
    parser.add_argument('--lines', type=Path, required=True, help='notes of finished runs, a line of JSON each')
    options = parser.parse_args()
    notes = [json.loads(line) for line in options.lines.read_text(encoding='utf-8').splitlines()]
    found = [note for note in notes if note['run'] == options.run_dir.name and 'test_top1' in note]
    if len(found) != 1:
        raise SystemExit(
            f'expected one note of {options.run_dir.name} with a test in {options.lines}, got {len(found)}'
        )
    config, metrics = (
        (options.run_dir / name).read_text(encoding='utf-8') for name in ('config.yaml', 'metrics.jsonl')
    )
    best = torch.load(options.run_dir / 'best.pt', map_location='cpu', weights_only=False)['model']
    target = options.target
    target.parent.mkdir(parents=True, exist_ok=True)
    texts = {'.yaml': portable(config, target.name), '.jsonl': log(metrics, found[0])}
    for suffix, data in ({name: text.encode() for name, text in texts.items()} | {'.pt': weights(best)}).items():
        file = target.with_suffix(suffix)
        file.unlink(missing_ok=True)  # one that is a link keeps what it leads to
        file.write_bytes(data)
    print(f'| [`{target.name}`]({target.parent.name}/{target.name}.yaml) | ... | {found[0]["test_top1"]:.2f} |')


if __name__ == '__main__':
    main()
