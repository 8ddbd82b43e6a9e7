"""Builds the files of a release and tries them as a user would; uploads nothing: ``python tools/release.py``.

The wheel is installed into an environment that is really empty, so it downloads torch (some 5 GB with the CUDA builds
of PyPI) unless pip has it in its cache. ``--torch PYTHON`` lends the packages of another environment instead: quick,
and no proof that the wheel names all that it needs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / 'dist'
TESTS = ('tests/contract', 'tests/unit/test_tokens.py')
SITE_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
WITHOUT_EXTRAS = 'import trg_torchdistill; print(trg_torchdistill.__version__, trg_torchdistill.__file__)'


def step(*words: str | Path, cwd: Path = ROOT) -> str:
    """Runs a command, shows it and its time, and returns what it printed; a failure ends the release."""
    print('$', *words, end='', flush=True)
    began = time.perf_counter()
    done = subprocess.run([*map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f'  # {time.perf_counter() - began:.0f} s')
    if done.returncode != 0:
        raise SystemExit(f'{done.stdout}\nfailed with exit code {done.returncode}: no release')
    return done.stdout


def environment(folder: Path) -> Path:
    """Makes a virtual environment and returns its interpreter."""
    step(sys.executable, '-m', 'venv', folder)
    return folder / 'bin' / 'python'


def build(folder: Path) -> tuple[Path, Path]:
    """Builds both files into ``dist/``, checks what an index would show of them, and returns them."""
    python = environment(folder)
    step(python, '-m', 'pip', 'install', '--quiet', 'build', 'twine')
    shutil.rmtree(DIST, ignore_errors=True)
    step(python, '-m', 'build', '--outdir', DIST)
    (source,), (wheel,) = DIST.glob('*.tar.gz'), DIST.glob('*.whl')
    print(step(python, '-m', 'twine', 'check', '--strict', source, wheel))
    return source, wheel


def unpack(source: Path, folder: Path) -> Path:
    """Unpacks the source distribution, and returns its folder.

    Raises:
        SystemExit: If it lacks a file of the repository.
    """
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter='data')
    unpacked = folder / source.name.removesuffix('.tar.gz')
    tracked = step('git', 'ls-files').splitlines()
    lacking = [name for name in tracked if not (unpacked / name).exists()]
    if lacking:
        raise SystemExit(f'expected {source.name} to hold all {len(tracked)} files of git, it lacks {lacking}')
    return unpacked


def install(wheel: Path, folder: Path, torch: str | None) -> Path:
    """Returns the interpreter of an environment that has the wheel and what it needs, and no extras."""
    python = environment(folder)
    pip = (python, '-m', 'pip', 'install', '--quiet')
    if torch is None:
        step(*pip, 'torch', 'torchvision')
    else:
        lent, own = (step(each, '-c', SITE_PACKAGES).strip() for each in (torch, python))
        (Path(own) / 'lent.pth').write_text(f'{lent}\n', encoding='utf-8')
    step(*pip, wheel)
    return python


def main() -> None:
    """Goes through the steps of a release, and stops before the last one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--torch', metavar='PYTHON', help='interpreter of an environment whose packages are lent')
    torch = parser.parse_args().torch
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix='trg_release_') as name:
        folder = Path(name)
        source, wheel = build(folder / 'tools')
        unpacked = unpack(source, folder)
        python = install(wheel, folder / 'empty', torch)
        print(step(python, '-c', WITHOUT_EXTRAS, cwd=folder))
        step(python, '-m', 'pip', 'install', '--quiet', f'{wheel}[test,hub]')
        print(step(python.with_name('trg-torchdistill'), 'demo', '--quick', cwd=folder))
        print(step(python, '-m', 'pytest', '-q', *TESTS, cwd=unpacked))
    with tarfile.open(source) as archive, zipfile.ZipFile(wheel) as files:
        print('\n'.join(sorted(files.namelist())))
        print(f'{source.name}: {len(archive.getnames())} files and folders, {source.stat().st_size / 1e6:.1f} MB')
        print(f'{wheel.name}: {len(files.namelist())} files, {wheel.stat().st_size / 1e6:.1f} MB; listed above')
    lent = '' if torch is None else f', with the packages of {torch} lent'
    print(f'ready after {time.perf_counter() - began:.0f} s{lent}. Nothing was uploaded: twine upload dist/*')


if __name__ == '__main__':
    main()
