"""What comes before the first epoch: the checks of the YAML, the models with their weights, and the trainer."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from trg_torchdistill.cli.data.logits import check_compared_logits
from trg_torchdistill.cli.data.preflight import Findings
from trg_torchdistill.cli.measure.run_files import Progress, RunFiles
from trg_torchdistill.cli.probe.build import build_box, build_model, build_with_weights
from trg_torchdistill.cli.probe.hooks import check_module_paths
from trg_torchdistill.cli.probe.weights import has_trained_weights, load_optimizer, weights_alone
from trg_torchdistill.cli.recipe.config import Config, import_packages, load_config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.keys import check_config
from trg_torchdistill.cli.recipe.numbers import check_values
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.tasks.recognised import refuse_other_tasks
from trg_torchdistill.cli.train.checkpoint import draw_apart, restore_training_state
from trg_torchdistill.cli.train.resume import tell_changes
from trg_torchdistill.cli.train.tracker import Tracker, check_tracker
from trg_torchdistill.cli.train.trainer import Trainer
from trg_torchdistill.cli.train.views import stored_views
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import write_json_lines


def checked_config(args: argparse.Namespace) -> Config:
    """Reads and checks the YAML, before anything of it is built.

    Raises:
        TRGError: At its first mistake.
    """
    unbuilt = load_deferred(args.config)
    refuse_other_tasks(unbuilt, 'train')
    import_packages(unbuilt)
    check_values(unbuilt)
    config = load_config(args.config)
    check_config(config)
    if not args.test_only:
        check_tracker(config)
    return config


def build_models(
    args: argparse.Namespace, config: Config, state: dict[str, Any] | None, placement: Placement
) -> tuple[nn.Module | None, nn.Module, dict[str, str]]:
    """Builds the teacher, if it is needed, and the student on the device; tells by side where their weights are from.

    Those of a student that is only tested, and those of the state of a resumed run, are loaded later.
    """
    loaded_later = {'student'} if args.test_only else set(() if state is None else state['modules'])
    sides = {'student': config.student_path}
    if config.teacher_path is not None and not (args.test_only and args.student_only):
        sides = {'teacher': config.teacher_path, **sides}
    models, origins = {}, {}
    for side, path in sides.items():
        if side in loaded_later:
            models[side], origins[side] = build_model(config, path, placement.distributed), 'those of the run'
        else:
            models[side], origins[side] = build_with_weights(config, path, placement.distributed)
    if not args.test_only:
        check_module_paths(config, models if config.teacher_path else {'model': models['student']})
    for model in models.values():
        model.to(placement.device)
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
    return models.get('teacher'), models['student'], origins


def tell_origins(config: Config, origins: dict[str, str], reporter: Reporter) -> None:
    """Says for each side with which weights the run starts."""
    for side, origin in origins.items():
        path = config.student_path if side == 'student' else config.teacher_path or ()
        reporter.say(f'weights of the {side} {config.get(*path, "key")}: {origin}')


def prepare(
    args: argparse.Namespace,
    config: Config,
    files: RunFiles,
    state: dict[str, Any] | None,
    models: tuple[nn.Module | None, nn.Module],
    found: Findings,
    placement: Placement,
    reporter: Reporter,
    tracker: Tracker,
) -> Trainer:
    """Returns a trainer at its first epoch or where the earlier run stopped; only now files are written."""
    box = build_box(config, *models, placement)
    check_compared_logits(config, box, found.num_classes)
    if args.start_epoch != 0 and box.has_stages:
        raise TRGError(
            'expected `--start_epoch 0` for a training in stages, of which torchdistill does not know where an epoch '
            f'belongs, got {args.start_epoch}; continue a run with `--resume`'
        )
    processes = placement.processes
    draw_apart(args.seed, processes)
    if state is None:
        source = config.get(*config.student_path, 'src_ckpt')
        best_value = load_optimizer(box, source)
        if best_value is not None:
            reporter.say(
                f'optimizer, scheduler and best accuracy {best_value:.2f} go on from {source}, not as the YAML has '
                f'them; to start from its weights alone, name the file that this writes: {weights_alone(str(source))}'
            )
        teacher_is_stored = config.teacher_path is None or has_trained_weights(config, config.teacher_path)
        progress = Progress(args.start_epoch, best_value or 0.0, saves_teacher=not teacher_is_stored)
    else:
        progress = restore_training_state(box, state, files.last, processes, placement.precision)
        tell_changes(config, state, args, processes, reporter)
        done = f'{progress.epochs_done} of {box.num_epochs} epochs'
        if progress.epochs_done < box.num_epochs:
            reporter.say(f'continuing {files.folder} after {done}')
        else:
            reporter.say(f'{files.folder} is finished, {done}; only the test is left')
    plain_args = {name: value for name, value in vars(args).items() if isinstance(value, (str, int, float, type(None)))}
    views = None
    if args.teacher_views is not None and progress.epochs_done < box.num_epochs:
        views = stored_views(args, box, config, files, placement, reporter)
    trainer = Trainer(
        box, models[1], files, progress, config, plain_args, reporter, placement, tracker, state is None, views
    )
    if state is None:
        trainer.save_state(progress)
    if processes.is_first:
        for stale in (files.error, *([files.test] if state is None else [])):
            stale.unlink(missing_ok=True)
        write_json_lines(files.metrics, progress.history)
    return trainer
