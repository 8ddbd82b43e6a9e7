"""Makes a teacher's views: seeded passes over the training images, with the teacher in eval mode."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler
from torchdistill.common.constant import SELF_MODULE_PATH
from torchdistill.common.main_util import set_seed

from trg_torchdistill.cli.data.reading import checked, describe, inner, prepare, read
from trg_torchdistill.cli.data.untouched import untouched_data, untouched_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.cli.train.tracker import as_written
from trg_torchdistill.cli.train.views_store import IMAGE, Arrays, Form, Store
from trg_torchdistill.datasets.labels import known_labels
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box

FORMAT = "trg_torchdistill teacher's views, version 1"
SEED = 20_000  # of the first view; the same for all runs, so that they can share views
STORED_TYPE = torch.float16
NUM_PROBES = 16
ROUNDING = 0.05  # of the largest value; another device or precision of products stays far below
BATCH_SIZE = 100  # where a batch sampler of the YAML decides about the batches of the training


class Maker:
    """Makes views of the images of a box's training loader, for :meth:`at_work`.

    Attributes:
        forms: Forms of the arrays of a view, by name.
        features: Module path and ``input`` or ``output`` of each hooked feature, by name.
        image_type: Type of the images.
    """

    def __init__(self, box: Box, config: Config, placement: Placement) -> None:
        self._box, self._config, self._placement = box, config, placement
        self.features: dict[str, tuple[str, str]] = {}
        loader: Any = box.train_data_loader
        self._loader = _in_order(loader)
        prepare(self._loader, config)
        dataset: Any = self._loader.dataset
        items = [checked(dataset[index]) for index in range(min(2, len(dataset)))]
        batch = checked(self._loader.collate_fn(items))
        if not isinstance(batch[0], Tensor) or batch[1].ndim != 1 or batch[1].is_floating_point():
            raise TRGError(
                f"expected items (image, class number) for the teacher's views, got {describe(items[0][:2])}; correct "
                f'the data set, or train without `--teacher_views`'
            )
        self.image_type = batch[0].dtype
        arrays = self._arrays(batch[0], batch[1])
        self.forms = {name: Form(values.shape[1:], str(values.dtype)) for name, values in arrays.items()}

    @classmethod
    @contextlib.contextmanager
    def at_work(cls, box: Box, config: Config, placement: Placement) -> Iterator[Maker]:
        """Yields a maker whose teacher is in eval mode; leaves teacher, data set and generators as they were."""
        teacher: Any = box.teacher
        with preserved_random_state(), untouched_data(box.train_data_loader), untouched_model(teacher, False):
            yield cls(box, config, placement)

    def facts(self) -> dict[str, Any]:
        """Returns what the views depend on, as plain values."""
        config, teacher = self._config, self._box.modules()['teacher_of_stage']
        written, (stage,) = as_written(parse_deferred(config.text)), config.stage_paths()
        side, dataset = config.get(*stage, 'teacher'), inner(self._loader.dataset)
        model = written['models']['teacher_model']
        labels, probe = known_labels(dataset), self._probe()
        return {
            'format': FORMAT,
            'seed': SEED,
            'type': str(STORED_TYPE),
            'data': written['datasets'].get(config.get(*stage, 'train_data_loader', 'dataset_id')),
            'num_images': len(dataset),
            'labels': None if labels is None else _digest([labels]),
            'items': probe if probe == self._probe() else None,  # else they depend on more than seeds
            'teacher': {key: model.get(key) for key in ('key', 'kwargs', 'repo_or_dir')},
            'teacher_weights': _digest(torch.nn.Module.state_dict(teacher).values()),
            'teacher_side': {
                key: as_written(side.get(key)) or None for key in ('forward_proc', 'sequential', 'adaptations')
            },
            'amp': self._placement.precision.name,
        }

    def check(self, store: Store) -> None:
        """Asks the teacher again about the first images of a store: its code may have changed, not only its weights.

        Raises:
            TRGError: If it says something else than rounding explains.
        """
        names = [name for name in self.forms if name not in store.missing(0)]
        if IMAGE not in names:
            return
        before = {name: np.array(values[:NUM_PROBES]) for name, values in store.open(0, names).items()}
        now = self._arrays(torch.from_numpy(before[IMAGE]).to(self.image_type), torch.from_numpy(before['label']))
        for name in names:
            one, other = before[name].astype(np.float64), now[name].astype(np.float64)
            if np.abs(one - other).max() > ROUNDING * np.abs(one).max():
                raise TRGError(
                    f'expected the teacher to say of the images in {store.folder} what it said before, got another '
                    f'`{name}`: its code or its `forward_proc:` has changed; remove {store.folder}, or name another '
                    'folder with `--views_dir`'
                )

    def make(self, store: Store, view: int, title: str, reporter: Reporter) -> None:
        """Writes what a store lacks of a view: the whole of it, or features that another run did not hook."""
        lacking, began = store.missing(view), time.perf_counter()
        if not lacking:
            return
        if IMAGE in lacking:
            store.write(view, list(self.forms), self._looked_at(view, title, reporter))
            lacking = store.missing(view)
        if lacking:
            store.write(view, lacking, self._looked_at_again(store, view, title, reporter))
        reporter.say(f'{title}: {store.num_images / (time.perf_counter() - began):.0f} img/s')

    def _looked_at(self, view: int, title: str, reporter: Reporter) -> Iterator[Arrays]:
        """Yields the batches of a view of all images, read with its seed."""
        set_seed(SEED + view)
        self._loader.generator = torch.Generator().manual_seed(SEED + view)
        for images, labels, _ in reporter.over(read(self._loader, self._config), title, len(self._loader)):
            yield self._arrays(images, labels)

    def _looked_at_again(self, store: Store, view: int, title: str, reporter: Reporter) -> Iterator[Arrays]:
        """Yields the batches of a view that is there."""
        arrays, step = store.open(view, (IMAGE, 'label')), self._loader.batch_size or BATCH_SIZE
        starts = range(0, store.num_images, step)
        for start in reporter.over(starts, title, len(starts)):
            images, labels = (torch.from_numpy(np.array(values[start : start + step])) for values in arrays.values())
            yield self._arrays(images.to(self.image_type), labels)

    def _arrays(self, images: Tensor, labels: Tensor) -> Arrays:
        """Returns what is stored of a batch; the teacher sees the images as they are stored."""
        stored, device = self._reduced(images, 'images of the data set'), self._box.device
        seen = stored.to(images.dtype).to(device)
        with self._placement.precision.autocast(), explained('the teacher failed on a batch of its views'):
            logits, hooked = self._box.teacher_output(seen, labels.to(device), {})
        found = {'logits': (SELF_MODULE_PATH, 'output', logits)}
        for path, values in hooked.items():
            for io, value in values.items():
                if (path, io) != (SELF_MODULE_PATH, 'output'):
                    found[f'feature-{quote(path, safe="+")}.{io}'] = (path, io, value)
        arrays = {IMAGE: stored.numpy(), 'label': labels.to(torch.int64).numpy()}
        for name, (path, io, value) in found.items():
            what = f'{io} of `{path}` of the teacher' if name != 'logits' else 'output of the teacher'
            if not isinstance(value, Tensor) or value.shape[:1] != images.shape[:1]:
                raise TRGError(
                    f'expected the {what} to be a tensor of a row an image for `--teacher_views`, got '
                    f"{describe(value)}; hook another module, give `forward_proc: 'forward_logits_only'`, or train "
                    'without `--teacher_views`'
                )
            arrays[name] = self._reduced(value, what).cpu().numpy()
            if name != 'logits':
                self.features[name] = (path, io)
        return arrays

    def _reduced(self, values: Tensor, what: str) -> Tensor:
        """Returns values in the type of the store; whole numbers stay as they are."""
        if not values.is_floating_point():
            return values
        reduced = values.detach().to(STORED_TYPE)
        if bool((reduced.isinf() & values.isfinite()).any()):
            raise TRGError(
                f'expected the {what} to be within 65504, all that 16 bits can hold, got {values.abs().max():.4g}; '
                'train without `--teacher_views`'
            )
        return reduced

    def _probe(self) -> str:
        """Returns a digest of some items, read with fixed seeds: other images and other transforms have another."""
        dataset: Any = self._loader.dataset
        count = len(dataset)
        with preserved_random_state(), untouched_data(self._loader):
            tensors = []
            for index in np.linspace(0, count - 1, min(count, NUM_PROBES)).astype(int).tolist():
                set_seed(SEED + index)
                image, label, _ = checked(dataset[index])
                tensors += [image, torch.as_tensor(label)]
        return _digest(tensors)


def _in_order(loader: Any) -> Any:
    """Returns a loader of the same items, all of them, in the order of the data set."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or BATCH_SIZE,
        sampler=SequentialSampler(loader.dataset),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


def _digest(tensors: Iterable[Any]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):  # extra state of a module
            digest.update(repr(tensor).encode())
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f'{values.dtype} {list(values.shape)}'.encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
