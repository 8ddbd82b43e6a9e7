"""What torchdistill's COCO trainers have beside them in their folder, as far as a box needs it; YAMLs name it."""

import torch
from torchdistill.datasets.registry import register_collate_func


@register_collate_func
def coco_collate_fn(batch):
    return tuple(zip(*batch, strict=True))


@register_collate_func
def coco_seg_collate_fn(batch):
    images, targets, supplements = zip(*batch, strict=True)
    return torch.stack(images), torch.stack(targets), supplements


@register_collate_func
def coco_seg_eval_collate_fn(batch):
    images, targets = zip(*batch, strict=True)
    return torch.stack(images), torch.stack(targets)


def coco_dataset(
    img_dir_path, ann_file_path, annotated_only, random_horizontal_flip=None, is_segment=False, transforms=None
):
    raise NotImplementedError('a check reads no data')


class Transform:
    def __init__(self, **options):
        self.options = options


class CustomCompose(Transform): ...


class CustomRandomHorizontalFlip(Transform): ...


class CustomRandomCrop(Transform): ...


class CustomToTensor(Transform): ...


class CustomNormalize(Transform): ...
