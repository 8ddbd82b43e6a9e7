"""Models that distillation experiments use and torchdistill lacks, and the way to timm's and Hugging Face's.

Those for CIFAR take images [B, 3, 32, 32] and give logits [B, num_classes]; a ``num_classes`` that is no integer of at
least 1 is a ``TRGError``.
"""

from trg_torchdistill.models.hub import hf_image_classifier, timm
from trg_torchdistill.models.mobilenet import mobilenetv2_cifar
from trg_torchdistill.models.resnet import resnet8, resnet8x4, resnet32x4
from trg_torchdistill.models.shufflenet import shufflenetv1_cifar, shufflenetv2_cifar
from trg_torchdistill.models.vgg import vgg8, vgg13_cifar
from trg_torchdistill.models.vit import vit_cifar_tiny
from trg_torchdistill.models.wide_resnet import wrn_16_2, wrn_40_1, wrn_40_2

__all__ = [
    'hf_image_classifier',
    'mobilenetv2_cifar',
    'resnet8',
    'resnet8x4',
    'resnet32x4',
    'shufflenetv1_cifar',
    'shufflenetv2_cifar',
    'timm',
    'vgg8',
    'vgg13_cifar',
    'vit_cifar_tiny',
    'wrn_16_2',
    'wrn_40_1',
    'wrn_40_2',
]
