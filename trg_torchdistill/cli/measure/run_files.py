"""The files that a run writes, and the refusal of those that would overwrite what it reads, or each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trg_torchdistill.cli.probe.weights import source_of, stage_blocks
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import Deferred, load_deferred
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import identity, is_address

# What is no part of a name, so that no two files share a RUN_DIR; `lr_0.1` has no suffix.
SUFFIXES = ('.pt', '.pth', '.ckpt', '.tar', '.bin', '.pkl', '.safetensors')


@dataclass(frozen=True)
class RunFiles:
    """The files of a run.

    Attributes:
        folder: RUN_DIR.
        best: Best weights in the example trainer's format, the student's ``dst_ckpt``.
    """

    folder: Path
    best: Path

    @property
    def last(self) -> Path:
        """The state of the training after its last finished epoch."""
        return self.folder / 'last.pt'

    @property
    def metrics(self) -> Path:
        """One line of JSON for each epoch."""
        return self.folder / 'metrics.jsonl'

    @property
    def test(self) -> Path:
        """The test results."""
        return self.folder / 'test.json'

    @property
    def error(self) -> Path:
        """The traceback of the error that ended the run."""
        return self.folder / 'error.log'

    @property
    def beside_the_weights(self) -> tuple[Path, ...]:
        """All files in the folder."""
        return self.last, self.metrics, self.test, self.error


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epochs_done: Number of finished epochs, over all stages.
        best_value: Best validation top-1 accuracy so far.
        best_epoch: Epoch, from 0, of the weights in ``dst_ckpt``; None while this run has written none.
        history: The lines of ``metrics.jsonl``.
        saves_teacher: Whether the teacher changes, so that its weights belong to the state.
    """

    epochs_done: int = 0
    best_value: float = 0.0
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    saves_teacher: bool = False


@dataclass(frozen=True)
class _Written:
    """A file that a run writes, what the YAML or the command line calls it, and the blocks that may read it too."""

    file: str | Path
    label: str
    readers: tuple[tuple[str, ...], ...] = ()


def files_of_run(config: Config, run_dir: str | None) -> RunFiles:
    """Returns the files of a run.

    Args:
        config: A checked YAML.
        run_dir: ``--run_dir``, None for ``dst_ckpt`` without its suffix.

    Raises:
        TRGError: If RUN_DIR would not be a folder of this ``dst_ckpt`` alone.
    """
    path = (*config.student_path, 'dst_ckpt')
    best = Path(config.get(*path))
    if run_dir is None and best.suffix.lower() not in SUFFIXES:
        raise TRGError(
            f'expected {config.where(*path)} to end in {", ".join(SUFFIXES)}, so that the folder of the run is called '
            f"as the file without it, got {str(best)!r}; write '{best}.pt', or name a folder with `--run_dir`"
        )
    files = RunFiles(best.with_suffix('') if run_dir is None else Path(run_dir).expanduser(), best)
    if files.folder.exists() and not files.folder.is_dir():
        raise TRGError(f'expected the folder of the run, got the file {files.folder}; choose another with `--run_dir`')
    if best.is_dir() or identity(best) == identity(files.folder):
        raise TRGError(f'expected {config.where(*path)} to be a file, got the folder {best}; add `.pt` to its name')
    return files


def refuse_named_file(option: str, file: str | None, config: str, *others: str | Path | None) -> None:
    """Refuses to write what an option names where the YAML names the same file; needs nothing but the YAML's text.

    A file of weights in the YAML stands for the files of its run as well.

    Args:
        option: The option, for the message.
        file: The word after it.
        config: The YAML file.
        others: More files that are read.

    Raises:
        TRGError: If it is the YAML, in the YAML, or one of the others.
    """
    if file is None:
        return
    texts = list(_texts(load_deferred(config).data))
    weights = [Path(text) for text in texts if Path(text).suffix.lower() in SUFFIXES]
    of_runs = [name for best in weights for name in RunFiles(best.with_suffix(''), best).beside_the_weights]
    named = [config, *(other for other in others if other), *texts, *of_runs]
    if identity(file) in [identity(name) for name in named]:
        raise TRGError(
            f'expected `{option}` to be a file of its own, got {file}, which is {config}, named there, or of '
            'the run; choose another name'
        )


def check_collisions(config: Config, files: RunFiles | None = None, run_log: str | None = None) -> None:
    """Refuses files that a run would write over what it reads, or over one another, whatever they are called.

    Args:
        config: A checked YAML.
        files: Files of the run, None for what the YAML names alone.
        run_log: ``--run_log``.

    Raises:
        TRGError: At the first such file.
    """
    blocks = [config.student_path, *([] if config.teacher_path is None else [config.teacher_path])]
    read: dict[tuple[str, ...], tuple[str, str]] = {(): ('the YAML itself', str(config.path))}
    for path in [*blocks, *stage_blocks(config)]:
        source = source_of(config, path)
        if source is not None and not is_address(source):
            read[path] = (config.where(*path, 'src_ckpt'), source)
    seen: dict[object, _Written] = {}
    for one in _written(config, files, run_log):
        for path, (label, source) in read.items():
            if identity(source) == identity(one.file) and path not in one.readers:
                raise _collision(one, label)
        other = seen.setdefault(identity(one.file), one)
        if other is not one:
            raise _collision(one, other.label)


def _written(config: Config, files: RunFiles | None, run_log: str | None) -> Iterator[_Written]:
    student, of_stages = config.side_names[-1], stage_blocks(config)
    own = tuple(path for path in of_stages if path[-1] == student)
    best = (*config.student_path, 'dst_ckpt')
    yield _Written(config.get(*best), config.where(*best), (config.student_path, *own))
    for file in () if files is None else files.beside_the_weights:
        yield _Written(file, f'{file.name} of the folder of the run, `--run_dir`,')
    if run_log is not None:
        yield _Written(run_log, '`--run_log`')
    for side in config.side_names:
        file = config.get('train', side, 'dst_ckpt')
        if isinstance(file, str):
            own = tuple(path for path in of_stages if path[-1] == side)
            yield _Written(file, config.where('train', side, 'dst_ckpt'), own)
    shared: dict[object, _Written] = {}  # a wrapper carries its file over from one stage to the next
    for path in of_stages:
        place = (*path, 'auxiliary_model_wrapper', 'kwargs')
        kwargs = config.get(*place)
        for name, file in kwargs.items() if isinstance(kwargs, dict) else ():
            if 'ckpt' in str(name) and isinstance(file, str):
                shared.setdefault((path[-1], name, identity(file)), _Written(file, config.where(*place, name)))
    yield from shared.values()


def _collision(one: _Written, label: str) -> TRGError:
    return TRGError(
        f'expected {one.label} to be a file of its own, got {one.file}, which is also {label}: the run would write '
        'over it; change one of the two'
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Deferred):
        yield from _texts(value.content)
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
