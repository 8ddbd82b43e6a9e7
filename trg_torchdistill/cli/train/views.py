"""``--teacher_views``: a frozen teacher looks once at some views of each image, and the training reads what it said."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchdistill.datasets.wrapper import BaseDatasetWrapper

from trg_torchdistill.cli.measure.run_files import RunFiles
from trg_torchdistill.cli.recipe.config import Config, shown
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.train.views_making import Maker
from trg_torchdistill.cli.train.views_store import IMAGE, Arrays, Store, size
from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box

OPTION = '`--teacher_views`'
TEACHER_IN_EVAL_MODE = 'pre_epoch_process_with_trg'
NUM_COMPARED = 16
SAID = 'teacher_view'  # where the supplement of an item has what the teacher said


def check_views(args: argparse.Namespace, config: Config, processes: Processes) -> None:
    """Checks the YAML and the command line for what stored views cannot stand for, before anything is built.

    Raises:
        TRGError: At the first such thing.
    """
    if args.teacher_views is None:
        if args.views_dir is not None:
            raise TRGError(f'expected `--views_dir` with {OPTION} K, got it alone; add {OPTION}')
        return
    without = f'or train without {OPTION}'
    if args.teacher_views < 1:
        raise TRGError(f'expected {OPTION} to be 1 or more, got {args.teacher_views}; 8 is a good number')
    if processes.are_several:
        raise TRGError(f'expected one process for {OPTION}, got {processes.size}; start without torchrun, {without}')
    if config.teacher_path is None:
        raise TRGError(f'expected a teacher for {OPTION}, got none in {config.where("models")}; train without it')
    stages = config.stage_paths()
    if len(stages) > 1:
        raise TRGError(
            f'expected one stage for {OPTION}, got {len(stages)} in {config.where("train")}; give each a YAML of its '
            f'own, {without}'
        )
    _check_stage(config, stages[0], without)


def stored_views(
    args: argparse.Namespace, box: Box, config: Config, files: RunFiles, placement: Placement, reporter: Reporter
) -> Views:
    """Writes the views that are missing, and lets a box train from them: its loader gives views, its teacher rests.

    Data set, teacher and random generators are left as they were.

    Raises:
        TRGError: If the box is none for views, its views do not fit, or the disk has no room for them.
        RunError: If they cannot be written.
    """
    (stage,) = config.stage_paths()
    if not box.teacher_is_frozen:
        where = config.where(*stage, 'teacher')
        raise TRGError(
            f'expected a frozen teacher for {OPTION}, got one that is trained; write `requires_grad: False` under '
            f'{where}, or train without {OPTION}'
        )
    loader: Any = box.train_data_loader
    if type(loader.dataset) is not BaseDatasetWrapper:
        where = config.where(*stage, 'train_data_loader')
        raise TRGError(
            f'expected the items of {where} to be (image, label) for {OPTION}, got those of a '
            f'`{type(loader.dataset).__name__}`; remove `requires_supp:` there, or train without {OPTION}'
        )
    folder = files.folder / 'views' if args.views_dir is None else Path(args.views_dir).expanduser()
    with Maker.at_work(box, config, placement) as maker:
        store = Store(folder, len(loader.dataset), maker.forms)
        facts = maker.facts()
        store.check(facts)
        maker.check(store)
        whole, lacking = store.num_bytes(args.teacher_views)
        state = f'{size(lacking)} to write' if lacking else 'all there'
        reporter.say(
            f"teacher's views: {args.teacher_views} of {store.num_images} images, {size(whole)}, {state}: {folder}"
        )
        store.check_space(lacking)
        store.begin(facts)
        for view in range(args.teacher_views):
            try:
                maker.make(store, view, f"teacher's views {view + 1}/{args.teacher_views}", reporter)
            except KeyboardInterrupt:
                reporter.say(f'interrupted; {folder} keeps {view} views, and the same command goes on with the next')
                raise
    views = Views(loader.dataset.org_dataset, store, maker.image_type, args.teacher_views, args.seed or 0)
    num_different = views.num_different()
    if num_different < args.teacher_views:
        reporter.say(
            f'WARNING: of {args.teacher_views} views of the teacher {num_different} differ: the training images have '
            'no random `transform:`, or one with a generator of its own; give them one that draws from torch, or '
            f'write `--teacher_views {num_different}`'
        )
    vars(loader)['dataset'] = views  # torch refuses another data set once a loader is built
    box.replace_teacher(StoredTeacher(box, maker.features))
    return views


class Views(Dataset[Any]):
    """One view of each image an epoch, with what the teacher said of it; each image goes through all views in turn.

    Args:
        org_dataset: The data set of the YAML, for those who ask it more than its items; workers do without it.
        store: The views.
        image_type: Type of the images.
        num_views: Number of views.
        seed: Of the order of the views, which is another one for each image and each round.
    """

    def __init__(self, org_dataset: Any, store: Store, image_type: torch.dtype, num_views: int, seed: int) -> None:
        self.org_dataset, self.store, self.image_type = org_dataset, store, image_type
        self.num_views, self.seed = num_views, seed
        self.epoch = torch.zeros((), dtype=torch.int64)
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers may live longer than an epoch
        self._arrays: dict[int, Arrays] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'org_dataset': None, '_arrays': {}}

    def __len__(self) -> int:
        return self.store.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, int, dict[str, Any]]:
        arrays = self.arrays(self.view_of(index))
        said = {name: torch.from_numpy(np.array(values[index])) for name, values in arrays.items()}
        image, label = said.pop(IMAGE), said.pop('label')
        return image.to(self.image_type), int(label), {SAID: said}

    def start_epoch(self, epoch: int) -> None:
        """Chooses the views of an epoch, counted from 0."""
        self.epoch.fill_(epoch)

    def view_of(self, index: int) -> int:
        """Returns the number of the view that an image has in this epoch."""
        turn, place = divmod(int(self.epoch), self.num_views)
        return int(np.random.default_rng([self.seed, turn, int(index)]).permutation(self.num_views)[place])

    def num_different(self) -> int:
        """Returns how many of the views differ, as their first images tell."""
        return len({self.arrays(view)[IMAGE][:NUM_COMPARED].tobytes() for view in range(self.num_views)})

    def arrays(self, view: int) -> Arrays:
        """Returns the arrays of a view; they stay on the disk."""
        if view not in self._arrays:
            self._arrays[view] = self.store.open(view, list(self.store.forms))
        return self._arrays[view]


class StoredTeacher:
    """A forward process that calls no model: it hands on what the teacher said, and fills the places of the hooks.

    Args:
        box: Distillation box.
        features: Module path and ``input`` or ``output`` of each feature, by its name in the store.
    """

    def __init__(self, box: Box, features: Mapping[str, tuple[str, str]]) -> None:
        self.box, self.features = box, features

    def __call__(
        self, model: nn.Module, sample_batch: Any, targets: Any = None, supp_dict: Any = None, **kwargs: Any
    ) -> Tensor:
        """Returns the logits."""
        said = {name: self._restored(value) for name, value in supp_dict[SAID].items()}
        for name, (path, io) in self.features.items():
            self.box.put_features('teacher', {path: {io: said[name]}})
        return said['logits']

    def _restored(self, value: Tensor) -> Tensor:
        value = value.to(self.box.device, non_blocking=True)
        return value.float() if value.is_floating_point() else value


def _check_stage(config: Config, stage: tuple[str, ...], without: str) -> None:
    process = config.get(*stage, 'pre_epoch_process')
    if process != TEACHER_IN_EVAL_MODE:
        raise TRGError(
            f'expected {config.where(*stage, "pre_epoch_process")} to be {TEACHER_IN_EVAL_MODE!r} for {OPTION}, got '
            f'{shown(process)}: a teacher in train mode says something else in every step, and torchdistill leaves it '
            f"there; write `pre_epoch_process: '{TEACHER_IN_EVAL_MODE}'`, {without}"
        )
    if config.get(*stage, 'teacher', 'auxiliary_model_wrapper', 'key') is not None:
        where = config.where(*stage, 'teacher', 'auxiliary_model_wrapper')
        raise TRGError(f'expected a plain teacher for {OPTION}, got {where}; remove the wrapper, {without}')
    for name in ('collate_fn', 'dataset_wrapper'):
        value, where = config.get(*stage, 'train_data_loader', name), config.where(*stage, 'train_data_loader', name)
        if value:
            raise TRGError(
                f'expected a training loader that gives (image, label) as the data set does for {OPTION}, got '
                f'{where}: it could mix images or add values that are not stored; remove it, {without}'
            )
