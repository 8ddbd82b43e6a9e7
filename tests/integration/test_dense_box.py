"""torchdistill's box around torchvision's own models for segmentation and detection: maps by key, grids, masks."""

import pytest
import torch
from host import CPU, SGD, indent, load, our_losses, stage, trg_term
from torch.utils.data import TensorDataset
from torchdistill.core.distillation import get_distillation_box
from torchvision.models import detection, segmentation

from trg_torchdistill.errors import TRGError

pytestmark = pytest.mark.slow

NUM_CLASSES, HEIGHT, WIDTH = 5, 72, 56
PROCESS = "pre_epoch_process: 'pre_epoch_process_with_trg'\n"
CE = """
ce:
  criterion: {key: 'CrossEntropyLoss', kwargs: {ignore_index: 255}}
  criterion_wrapper:
    key: 'DictLossWrapper'
    kwargs: {input: {is_from_teacher: False, module_path: '.', io: 'output'}, target: {uses_label: True},
             weights: {out: 1.0}}
  weight: 1.0
"""
MODEL_LOSS = "func2extract_model_loss: 'extract_model_loss_dict'"


def sides(student, teacher="'backbone'", process='forward_batch_only', more=''):
    return PROCESS + (
        f"teacher: {{forward_proc: '{process}', requires_grad: False, forward_hook: {{output: [{teacher}]}}}}\n"
        f"student:\n  forward_proc: '{process}'\n  forward_hook: {{output: [{student}]}}\n{indent(more, 2)}"
    )


PROJECTED = sides(
    "'student_model.backbone', 'projectors.low'",
    more="""
    auxiliary_model_wrapper:
      key: 'Student4TRG'
      kwargs:
        projectors:
          low: {path: 'student_model.backbone', io: 'output', in_features: 40, out_features: 960, tokens: {key: 'low'}}
    """,
)
PROJECTION = """
projection_module_path: 'projectors.low'
student_tokens: {key: 'low'}
teacher_tokens: {key: 'out'}
token_mask: {ignore_index: 255}
tokens_per_image: null
"""


def segmentation_box(tmp_path, text):
    options = {'weights': None, 'weights_backbone': None, 'num_classes': NUM_CLASSES}
    teacher = segmentation.deeplabv3_mobilenet_v3_large(aux_loss=True, **options)
    return box_around(tmp_path, text, teacher, segmentation.lraspp_mobilenet_v3_large(**options))


def detection_box(tmp_path, text):
    options = {'weights': None, 'weights_backbone': None, 'num_classes': 3, 'min_size': 64, 'max_size': 128}
    options |= {'rpn_post_nms_top_n_train': 20, 'rpn_post_nms_top_n_test': 20}
    models = [detection.fasterrcnn_mobilenet_v3_large_320_fpn(**options) for _ in range(2)]
    return box_around(
        tmp_path, text.replace("  key: 'WeightedSumLoss'", f"  key: 'WeightedSumLoss'\n  {MODEL_LOSS}"), *models
    )


def box_around(tmp_path, text, teacher, student):
    torch.manual_seed(0)
    data = TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    box = get_distillation_box(
        teacher, student, dict.fromkeys(('train', 'val'), data), load(tmp_path, text), CPU, None, False, 1
    )
    box.pre_epoch_process(epoch=0)
    return box


def labelled_images():
    """Two images and their maps; most of the second one is padding, on the right and below."""
    maps = torch.randint(NUM_CLASSES, (2, HEIGHT, WIDTH))
    maps[1, 30:] = maps[1, :, 21:] = 255
    return torch.rand(2, 3, HEIGHT, WIDTH), maps


def images_with_objects():
    """A square image beside one twice as wide, with an object each."""
    target = {'boxes': torch.tensor([[8.0, 8.0, 40.0, 40.0]]), 'labels': torch.ones(1, dtype=torch.int64)}
    return [torch.rand(3, 64, 64), torch.rand(3, 64, 128)], [target, dict(target)]


def mask_in_step(box, images, targets):
    """Makes a training step; returns the loss, and which tokens of the common grid counted in it."""
    trg, seen = our_losses(box)['trg'], []
    handle = trg.register_forward_pre_hook(lambda module, inputs: seen.append(module.tokens(*inputs)))
    loss = box.forward_process(images, targets, {})
    handle.remove()
    box.post_forward_process(loss=loss)
    assert torch.isfinite(loss)
    assert all(value > 0 for _, value in trg.terms().values())
    return loss, seen[0]


def test_a_backbone_of_several_maps_needs_a_key(tmp_path):
    box = segmentation_box(tmp_path, stage(1, CE + trg_term('backbone', 'backbone'), sides("'backbone'")))
    expected = r"student's `backbone` output to hold one tensor, got a mapping with \['low', 'high'\]; add `key: 'low'`"
    with pytest.raises(TRGError, match=expected):
        box.forward_process(*labelled_images(), {})


def test_a_wrong_key_is_told_with_the_keys_there_are(tmp_path):
    options = "student_tokens: {key: 'high'}\nteacher_tokens: {key: 'aut'}"
    box = segmentation_box(tmp_path, stage(1, CE + trg_term('backbone', 'backbone', options), sides("'backbone'")))
    with pytest.raises(TRGError, match=r"to have the entry 'aut', got \['aux', 'out'\].*did you mean `out`"):
        box.forward_process(*labelled_images(), {})


def test_unequal_odd_grids_with_a_projection_and_the_padding_of_the_targets(tmp_path):
    terms = CE + trg_term('student_model.backbone', 'backbone', PROJECTION)
    box = segmentation_box(tmp_path, stage(1, terms, PROJECTED))
    images, maps = labelled_images()
    weight = box.student_model.projectors.low.linear.weight
    before = weight.detach().clone()
    _, tokens = mask_in_step(box, images, maps)
    assert (weight != before).any()
    assert tokens.student_grid == (9, 7)
    assert tokens.grid == (5, 4)
    for image in range(2):
        for row in range(5):
            for column in range(4):
                rows = slice(row * HEIGHT // 5, -(-(row + 1) * HEIGHT // 5))
                columns = slice(column * WIDTH // 4, -(-(column + 1) * WIDTH // 4))
                counts = bool((maps[image, rows, columns] != 255).any())
                assert bool(tokens.mask[image, 4 * row + column]) == counts
    assert 0 < tokens.mask[1].sum() < tokens.mask[0].sum() == 20


def test_detection_counts_no_token_of_what_its_transform_pads(tmp_path):
    options = """
        student_tokens: {key: '0'}
        teacher_tokens: {key: '0'}
        token_mask: {path: 'transform', io: 'output', side: 'student'}
        """
    student = sides("'backbone', 'transform'", process='forward_batch_target')
    text = stage(1, trg_term('backbone', 'backbone', options), student)
    box = detection_box(tmp_path, text.replace('    sub_terms:', '    model_term: {weight: 1.0}\n    sub_terms:'))
    loss, tokens = mask_in_step(box, *images_with_objects())
    assert tokens.grid == (2, 4)
    assert tokens.mask.reshape(2, 2, 4).tolist() == [[[True, True, False, False]] * 2, [[True] * 4] * 2]
    ours = sum(weight * value for weight, value in our_losses(box)['trg'].terms().values())
    assert loss > ours  # the losses that the model returns are in it


def test_the_levels_of_a_pyramid_are_listed(tmp_path):
    text = stage(1, trg_term('backbone', 'backbone'), sides("'backbone'", process='forward_batch_target'), SGD)
    with pytest.raises(TRGError, match=r"a mapping with \['0', '1', 'pool'\]; add `key: '0'`"):
        detection_box(tmp_path, text).forward_process(*images_with_objects(), {})


def test_targets_of_a_detection_batch_are_no_mask(tmp_path):
    options = "student_tokens: {key: '0'}\nteacher_tokens: {key: '0'}\ntoken_mask: {ignore_index: 255}"
    student = sides("'backbone'", process='forward_batch_target')
    box = detection_box(tmp_path, stage(1, trg_term('backbone', 'backbone', options), student))
    with pytest.raises(TRGError, match=r'the targets of the batch to be the labels .*, got list; change `token_mask:`'):
        box.forward_process(*images_with_objects(), {})
