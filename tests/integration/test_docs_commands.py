"""The commands of the guide, run page by page as they stand there, on tiny models under the names of the pages."""

import pytest
import torch
from documents import PAGES, ROOT, commands
from tiny import KD, SIDES, TRG, TRG_SIDES, stage, tiny_net, whole_yaml

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.slow

# Pages with commands that are run elsewhere, or that need data or runs which nobody has here.
ELSEWHERE = {
    'configs/official/README.md': 'contract/test_official.py',
    'docs/demo.md': 'integration/test_demo.py',
    'docs/experiments.md': 'integration/test_experiment_configs.py',
    'docs/performance.md': 'integration/test_train_views.py',
    'docs/text.md': 'integration/test_add_text.py',
    'docs/short.md': 'integration/test_plot_command.py',
    'docs/results.md': 'integration/test_check_on_data.py',
}
DIGITS = 'configs/sample/digits'
CHECKPOINTS = 'resource/ckpt/digits'
QUICK = {'plot': ['--dpi', '30', '--format', 'png'], 'check': ['--steps', '1']}


def complete(page):
    """The commands of a page that have all their words."""
    found = [words[1:] for words in commands(page) if words[0] == 'trg-torchdistill' and len(words) > 2]
    return [words for words in found if words[1] != 'CONFIG']


RUN = [page for page in PAGES if page not in ELSEWHERE and complete(page)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with weights of a teacher, and the YAMLs that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    torch.save(tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    student = 'digits-resnet8_from_resnet20.pt'
    plain, related = stage(1, KD, SIDES), stage(1, KD + TRG, TRG_SIDES)
    yamls = {
        'OLD.yaml': (plain, 'old.pt'),
        'NEW.yaml': (related, 'RUN_DIR.pt'),
        f'{DIGITS}/teacher.yaml': (plain, f'{CHECKPOINTS}/teacher.pt'),
        f'{DIGITS}/kd.yaml': (plain, f'{CHECKPOINTS}/kd/{student}'),
        f'{DIGITS}/trg.yaml': (related, f'{CHECKPOINTS}/trg/{student}'),
        f'{DIGITS}/longtailed_trg.yaml': (related, f'{CHECKPOINTS}/longtailed_trg/{student}'),
    }
    for name, (train, written) in yamls.items():
        text = whole_yaml(
            tmp_path, train, train_kwargs='size: 24, image_size: 8, counts: [9, 7, 4, 2, 1, 1]', dst_ckpt=written
        )
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace('src_ckpt: }', "src_ckpt: 'teacher.pt'}", 1))
    return tmp_path


@pytest.mark.parametrize('page', RUN)
def test_they_run(page, folder):
    found = complete(page)
    if any(words[0] == 'add' and '-o' in words for words in found):
        (folder / 'NEW.yaml').unlink()
    for words in found:
        assert main([*words, *QUICK.get(words[0], [])]) == 0, words


def test_each_page_is_run_here_or_elsewhere():
    assert {'README.md', 'docs/start.md', 'docs/checkpoints.md', 'docs/pictures.md'} <= set(RUN)
    for page, test in ELSEWHERE.items():
        assert complete(page)
        assert (ROOT / 'tests' / test).is_file()
