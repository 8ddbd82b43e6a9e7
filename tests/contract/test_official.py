"""Every official run has its log, weights that load, and in the README the figure of its log."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs' / 'official'
TEACHER = ROOT / 'benchmarks' / 'accuracy' / 'results' / 'cpu-teacher.pt'
RUNS = sorted(FOLDER.rglob('*.yaml'))
ROWS = dict(
    re.findall(r'^\| \[`\w+`\]\((.+?)\) \| .+ \| ([\d.]+) \|$', (FOLDER / 'README.md').read_text(), re.MULTILINE)
)
tool = runpy.run_path(str(ROOT / 'tools' / 'official.py'))
YAML = """
datasets:
  train: {kwargs:
      root: /home/of/one/data/train
  }
models:
    src_ckpt: /home/of/one/benchmarks/accuracy/results/cpu-teacher.pt
    dst_ckpt: /tmp/run/best.pt
"""


def test_the_readme_has_a_row_for_each_run():
    assert [*ROWS] == [path.relative_to(FOLDER).as_posix() for path in RUNS]
    assert len({path.stem for path in RUNS}) == len(RUNS)


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_a_run_has_the_figure_of_the_readme_and_small_weights(path):
    *epochs, run = map(json.loads, path.with_suffix('.jsonl').read_text().splitlines())
    assert ROWS[path.relative_to(FOLDER).as_posix()] == f'{run["test_top1"]:.2f}'
    assert max((epoch['val_top1'] for epoch in epochs), default=run['val_top1']) == run['val_top1']
    weights = path.with_suffix('.pt')
    assert weights.stat().st_size <= tool['LARGEST'] or weights.read_bytes() == TEACHER.read_bytes()


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_the_hub_builds_a_run_and_its_weights_fit(path):
    """Loading is strict; an untrained model is another one."""
    images = torch.rand(2, 3, 32, 32)
    trained, untrained = (
        torch.hub.load(str(ROOT), path.stem, source='local', pretrained=pretrained).eval()(images)
        for pretrained in (True, False)
    )
    assert trained.shape == (2, 10)
    assert trained.isfinite().all()
    assert not torch.allclose(trained, untrained)


def test_a_yaml_loses_the_paths_of_the_machine():
    text = tool['portable'](YAML, 'vit_kd')
    assert re.findall(r'\S*/\S*', text) == [
        './resource/dataset/cifar10_images/train',
        './benchmarks/accuracy/results/cpu-teacher.pt',
        './resource/ckpt/official/vit_kd.pt',
    ]
    with pytest.raises(SystemExit, match=r"got \['    list_file: /home/a'\]"):
        tool['portable'](YAML + '    list_file: /home/a\n', 'vit_kd')


@pytest.mark.parametrize(('numbers', 'dtype'), [(1000, torch.float32), (300_000, torch.float16), (600_000, None)])
def test_weights_are_kept_as_wide_as_the_limit_allows(numbers, dtype, tmp_path):
    state = {'weight': torch.rand(numbers), 'steps': torch.tensor(3)}
    if dtype is None:
        with pytest.raises(SystemExit, match='at most 1000000 bytes'):
            tool['weights'](state)
        return
    (tmp_path / 'a.pt').write_bytes(tool['weights'](state))
    found = torch.load(tmp_path / 'a.pt', weights_only=True)
    assert (found['weight'].dtype, found['steps']) == (dtype, 3)
    torch.testing.assert_close(found['weight'].float(), state['weight'], atol=1e-3, rtol=1e-3)


def test_a_log_has_what_an_epoch_measured_and_the_run():
    metrics = json.dumps({'epoch': 0, 'val_top1': 25.2, 'seconds': {'train': 3.0}, 'images_per_second': 9.0}) + '\n'
    lines = tool['log'](metrics, {'run': 'vit-kd', 'seed': 0, 'config_sha256': 'ab'}).splitlines()
    assert list(map(json.loads, lines)) == [{'epoch': 0, 'val_top1': 25.2}, {'run': 'vit-kd', 'seed': 0}]
