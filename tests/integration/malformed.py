"""The table of malformed YAML: which line of a good `train:` block is changed to what, and the error that must follow.

A row is (good YAML, its line, the line instead, message). The message is the whole text that a user sees, apart
from the list of known keywords.
"""

import textwrap

from host import TinyCnn, full_method, projection, tiny_vit, train_yaml, trg_term

OPTIONS = """\
tokens_per_image: 8
            num_neighbors: 8
            sigma: 0.5
            max_tokens: 4096
            local_weight: 1.0
            global_weight: 1.0
            kl_direction: 'teacher_student'
            normalize_tokens: true
            student_tokens: {patch_size: 1}
            teacher_tokens: {patch_size: 1}"""
VIT_OPTIONS = 'student_tokens: {num_prefix_tokens: 1}\nteacher_tokens: {num_prefix_tokens: 1}'
VIT_HOOKS = "forward_hook: {input: [], output: ['encoder.ln', 'conv_proj']}"

GOOD = {
    'full': (full_method().replace('tokens_per_image: null', OPTIONS), lambda: TinyCnn(12), TinyCnn),
    'small': (train_yaml(), TinyCnn, TinyCnn),
    'unequal': (train_yaml(), lambda: TinyCnn(12), TinyCnn),
    'contextual': (
        train_yaml(trg_term(key='TokenContextualLoss', options="reduction: 'mean'\ntemperature: 0.1")),
        TinyCnn,
        TinyCnn,
    ),
    'vit': (train_yaml(trg_term('encoder.ln', 'encoder.ln', VIT_OPTIONS), VIT_HOOKS, VIT_HOOKS), tiny_vit, tiny_vit),
    'teacher side': (train_yaml(), TinyCnn, TinyCnn),
}

TRG = '; change it under the `kwargs:` of `TRGLoss`'
INNER = '; change it under the `kwargs:` of `TokenContextualLoss`'
WRAPPER = '; change it under the `kwargs:` of `Student4TRG`'
SCHEDULE = '; it stands under `temperature:`' + TRG
STUDENT = "; `TRGLoss` read the student's `{}`, change its `student_tokens:` or the path"
TOKENS = STUDENT.format('student_model.layer4')
VIT = STUDENT.format('encoder.ln')
PROJECTOR = '; it stands under `projectors.layer4:`' + WRAPPER
TEMPERATURE = "temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}"
HOOKS = "{input: [], output: ['student_model.layer4', 'projectors.layer4']}"
S_PATH = "student_module_path: 'student_model.layer4'"
P_PATH = "path: 'student_model.layer4', io: 'output',"
S_TOKENS = 'student_tokens: {patch_size: 1}'
T_TOKENS = 'teacher_tokens: {patch_size: 1}'
V_TOKENS = 'student_tokens: {num_prefix_tokens: 1}'
INNER_REDUCTION = "reduction: 'mean'\n            temperature: 0.1"

KEYWORDS = [
    ('full', 'num_neighbors: 8', 'num_neighbours: 8',
     'got `num_neighbours`; did you mean `num_neighbors`?; change it under the `kwargs:` of `TRGLoss`'),
    ('full', 'sigma: 0.5', 'tau: 0.5', 'got `tau`; change it under the `kwargs:` of `TRGLoss`'),
    ('full', S_PATH, '', 'expected `TRGLoss` to have the key `student_module_path`, got ['),
    ('full', S_PATH, '', 'change it under the `kwargs:` of `TRGLoss`'),
    ('full', S_PATH, 'student_module_path: null',
     'expected `student_module_path` to be a non-empty string, got None' + TRG),
    ('full', "student_module_io: 'output'", "student_module_io: 'outputs'",
     "expected `student_module_io` to be one of 'input', 'output', got 'outputs'; did you mean `output`?" + TRG),
    ('full', 'num_neighbors: 8', 'num_neighbors: 0', 'expected `num_neighbors` to be an integer >= 1, got 0' + TRG),
    ('full', 'num_neighbors: 8', 'num_neighbors: 2.5',
     'expected `num_neighbors` to be an integer >= 1, got 2.5' + TRG),
    ('full', 'num_neighbors: 8', "num_neighbors: '8'",
     "expected `num_neighbors` to be an integer >= 1, got '8' (a string in YAML; write 8)" + TRG),
    ('full', 'sigma: 0.5', 'sigma: 0', 'expected `sigma` to be a number > 0, got 0' + TRG),
    ('full', 'sigma: 0.5', 'sigma: 5e-1',
     "expected `sigma` to be a number > 0, got '5e-1' (a string in YAML; write 0.5)" + TRG),
    ('full', 'sigma: 0.5', 'sigma: .inf', 'expected `sigma` to be a number > 0, got inf' + TRG),
    ('full', 'sigma: 0.5', 'sigma: null', 'expected `sigma` to be a number > 0, got None' + TRG),
    ('full', 'sigma: 0.5', 'sigma: yes', 'expected `sigma` to be a number > 0, got True' + TRG),
    ('full', 'tokens_per_image: 8', "tokens_per_image: 'all'",
     "expected `tokens_per_image` to be an integer >= 1, got 'all'" + TRG),
    ('full', 'max_tokens: 4096', 'max_tokens: 4e3',
     "expected `max_tokens` to be an integer >= 1, got '4e3' (a string in YAML; write 4000)" + TRG),
    ('full', 'max_tokens: 4096', 'max_tokens: 0', 'expected `max_tokens` to be an integer >= 1, got 0' + TRG),
    ('full', 'local_weight: 1.0', 'local_weight: -1.0',
     'expected `local_weight` to be a number >= 0 or {start, end, schedule}, got -1.0' + TRG),
    ('full', 'global_weight: 1.0', 'global_weight: 1e-1',
     'expected `global_weight` to be a number >= 0 or {start, end, schedule}, '
     "got '1e-1' (a string in YAML; write 0.1)" + TRG),
    ('full', 'normalize_tokens: true', "normalize_tokens: 'true'",
     "expected `normalize_tokens` to be true or false, got 'true'" + TRG),
    ('full', "kl_direction: 'teacher_student'", "kl_direction: 'teacher_studnet'",
     "to be one of 'teacher_student', 'student_teacher', got 'teacher_studnet'; did you mean `teacher_student`?" + TRG),
    ('full', TEMPERATURE, 'temperature: 0', 'to be a number > 0 or {start, end, schedule}, got 0' + TRG),
    ('full', TEMPERATURE, 'temperature: null', 'to be a number > 0 or {start, end, schedule}, got None' + TRG),
    ('full', TEMPERATURE, 'temperature: [0.5, 0.1]',
     'expected `temperature` to be a number > 0 or {start, end, schedule}, got [0.5, 0.1]' + TRG),
    ('full', 'end: 0.1', 'end: 0.0', 'expected `end` to be a number > 0, got 0.0' + SCHEDULE),
    ('full', 'end: 0.1', 'end: 1e-1',
     "expected `end` to be a number > 0, got '1e-1' (a string in YAML; write 0.1)" + SCHEDULE),
    ('full', ', end: 0.1', '', "expected `temperature` to have the key `end`, got ['start', 'schedule']" + TRG),
    ('full', 'end: 0.1', 'stop: 0.1',
     "expected `temperature` to have keys among ['start', 'end', 'schedule', 'until'], got `stop`" + TRG),
    ('full', "schedule: 'cosine'", "schedule: 'cosin'",
     "one of 'cosine', 'linear', 'exponential', got 'cosin'; did you mean `cosine`?" + SCHEDULE),
    ('contextual', INNER_REDUCTION, "reduction: 'sum'",
     "expected `reduction` to be one of 'mean', 'batchmean', got 'sum'" + INNER),
    ('contextual', INNER_REDUCTION, 'num_neighbors: 8',
     'got `num_neighbors`; change it under the `kwargs:` of `TokenContextualLoss`'),
    ('contextual', 'temperature: 0.1', 'temperature: {start: 0.5, end: 0.1}',
     "expected `temperature` to be a number > 0, got {'start': 0.5, 'end': 0.1}" + INNER),
]  # fmt: skip

TOKEN_OPTIONS = [
    ('full', S_TOKENS, 'student_tokens: {patch: 1}',
     "'grid_size', 'key'], got `patch`; did you mean `patch_size`?" + TRG),
    ('full', S_TOKENS, 'student_tokens: [1]',
     'expected `student_tokens` to be a mapping with keys among '
     "['layout', 'patch_size', 'num_prefix_tokens', 'grid_size', 'key'], got [1]" + TRG),
    ('full', S_TOKENS, "student_tokens: {layout: 'nchw'}",
     "got 'nchw'; did you mean `bchw`?; it stands under `student_tokens:`" + TRG),
    ('full', S_TOKENS, 'student_tokens: {patch_size: 3}',
     'expected `patch_size` to divide the feature map 4 x 4, got 3' + TOKENS),
    ('full', S_TOKENS, "student_tokens: {layout: 'bnd'}",
     "expected a 3-D feature for layout 'bnd', got shape [8, 8, 4, 4]; set `layout:` and hook a module with that "
     'output' + TOKENS),
    ('full', S_TOKENS, "student_tokens: {layout: 'bhwc', num_prefix_tokens: 1}",
     "expected `num_prefix_tokens` to be 0 with layout 'bhwc', got 1: only a sequence ('bnd') has prefix tokens"),
    ('full', T_TOKENS, 'teacher_tokens: {grid_size: 4}',
     'expected `grid_size` to be [h, w] or null, got 4; it stands under `teacher_tokens:`' + TRG),
    ('full', S_TOKENS, 'student_tokens: {patch_size: 2}',
     'give the projector of `projectors.layer4` the same `tokens:` as `student_tokens:` of `TRGLoss`'),
    ('full', 'in_features: 8, out_features: 12', 'in_features: 32, out_features: 12, tokens: {patch_size: 2}',
     'give the projector of `projectors.layer4` the same `tokens:` as `student_tokens:` of `TRGLoss`'),
    ('vit', V_TOKENS, 'student_tokens: {}',
     'expected a square number of tokens, got 17; drop the class token with `num_prefix_tokens: 1` or set '
     '`grid_size: [h, w]`' + VIT),
    ('vit', V_TOKENS, 'student_tokens: {num_prefix_tokens: 2}',
     'expected a square number of tokens, got 15; drop the class token with `num_prefix_tokens: 1` or set' ),
    ('vit', V_TOKENS, 'student_tokens: {num_prefix_tokens: 17}',
     'expected more than `num_prefix_tokens` = 17 tokens, got 17' + VIT),
    ('vit', V_TOKENS, 'student_tokens: {num_prefix_tokens: -1}',
     'expected `num_prefix_tokens` to be an integer >= 0, got -1; it stands under `student_tokens:`' + TRG),
    ('vit', V_TOKENS, 'student_tokens: {num_prefix_tokens: 1, grid_size: [2, 4]}',
     'expected `grid_size` to hold 16 tokens (17 less 1 prefix tokens), got 2 x 4 = 8' + VIT),
    ('vit', "student_module_path: 'encoder.ln'", "student_module_path: 'conv_proj'",
     "expected a 3-D feature ('bnd') for `num_prefix_tokens` or `grid_size`, got shape [8, 16, 4, 4]"
     + STUDENT.format('conv_proj')),
]  # fmt: skip

HOOKED_MODULES = [
    ('full', S_PATH, "student_module_path: 'layer4'",
     "`TRGLoss` expected the student's `layer4` output among the hooked modules, got "
     "['projectors.layer4', 'student_model.layer4']; did you mean `projectors.layer4` or `student_model.layer4`?; "),
    ('full', "student_module_io: 'output'", "student_module_io: 'input'",
     "`TRGLoss` expected the student's `student_model.layer4` input, got its output only; "
     "add 'student_model.layer4' to `train.student.forward_hook.input`"),
    ('full', "teacher_module_path: 'layer4'", "teacher_module_path: 'layr4'",
     "expected the teacher's `layr4` output among the hooked modules, got ['layer4']; did you mean `layer4`?; add "),
    ('full', ", 'projectors.layer4']", ']',
     "`TRGLoss` expected the student's `projectors.layer4` output among the hooked modules, got "
     "['student_model.layer4']; add 'projectors.layer4' to `train.student.forward_hook.output`"),
    ('full', HOOKS, "{input: [], output: ['projectors.layer4']}",
     "`Student4TRG` expected the student's `student_model.layer4` output among the hooked modules, got "
     "['projectors.layer4']; add 'student_model.layer4' to `train.student.forward_hook.output`"),
    ('full', HOOKS, "{input: ['student_model.layer4'], output: ['projectors.layer4']}",
     "`Student4TRG` expected the student's `student_model.layer4` output, got its input only; "
     "add 'student_model.layer4' to `train.student.forward_hook.output`"),
    ('full', HOOKS, "{input: ['projectors.layer4'], output: ['student_model.layer4']}",
     "`TRGLoss` expected the student's `projectors.layer4` output, got its input only; "
     "add 'projectors.layer4' to `train.student.forward_hook.output`"),
    ('full', "projection_module_path: 'projectors.layer4'", "projection_module_path: 'projectors.layr4'",
     "got ['projectors.layer4', 'student_model.layer4']; did you mean `projectors.layer4`?; "),
    ('full', "projection_module_path: 'projectors.layer4'", '',
     "expected the student's `student_model.layer4` to have the width of the teacher's tokens, 12, got 8; add a block "
     'under `projectors:` of `Student4TRG` with `in_features: 8, out_features: 12`, name it in '
     "`projection_module_path: 'projectors.NAME'` and hook 'projectors.NAME', or set `global_weight: 0`"),
    ('unequal', "student_module_io: 'output'", "student_module_io: 'output'",
     "expected the student's `layer4` to have the width of the teacher's tokens, 12, got 8; add a block under "),
    ('small', "  forward_hook: {input: [], output: ['layer4']}\noptimizer", 'optimizer',
     "`TRGLoss` expected the student's `layer4` output among the hooked modules, got []; "
     "add 'layer4' to `train.student.forward_hook.output`"),
    ('small', "  forward_hook: {input: [], output: ['layer4']}\nstudent", 'student',
     "`TRGLoss` expected the teacher's `layer4` output among the hooked modules, got []; "
     "add 'layer4' to `train.teacher.forward_hook.output`"),
    ('full', "pre_epoch_process: 'pre_epoch_process_with_trg'", '',
     "expected the schedule `temperature` to be told its epoch, got none; add `pre_epoch_process: "
     "'pre_epoch_process_with_trg'` under `train:` (under the stage, if it has stages), or make `temperature:` of "
     '`TRGLoss` a number'),
    ('teacher side', "  forward_hook: {input: [], output: ['layer4']}\nstudent",
     textwrap.indent(projection(), '  ') + 'student',
     'expected `Student4TRG` to wrap the student, got the teacher; move `auxiliary_model_wrapper:` from '
     '`train.teacher` to `train.student`'),
]  # fmt: skip

PROJECTORS = [
    ('full', 'in_features: 8', 'in_features: 12',
     'expected tokens of width `in_features` = 12 from `student_model.layer4`, got 8; change `in_features:` to 8 under '
     '`projectors:` of `Student4TRG`'),
    ('full', 'out_features: 12', 'out_features: 8',
     "expected the projection `projectors.layer4` to have the width of the teacher's tokens, 12, got 8; change its "
     '`out_features:` to 12 under `projectors:` of `Student4TRG`'),
    ('full', 'in_features: 8', 'in_features: 0',
     'expected `in_features` to be an integer >= 1, got 0' + PROJECTOR),
    ('full', 'in_features: 8', 'in_features: 8.0',
     'expected `in_features` to be an integer >= 1, got 8.0' + PROJECTOR),
    ('full', 'in_features: 8', 'in_feature: 8', 'got `in_feature`; did you mean `in_features`?' + WRAPPER),
    ('full', 'in_features: 8,', '',
     "expected `projectors.layer4` to have the key `in_features`, got ['path', 'io', 'out_features']" + WRAPPER),
    ('full', P_PATH, "path: 'layer4', io: 'output',",
     "expected `path` of the projector `layer4` to be a module path that begins with 'student_model', got 'layer4'; "
     'did you mean `student_model.layer4`?' + WRAPPER),
    ('full', P_PATH, "path: 'student_model.layr4', io: 'output',",
     "got 'student_model.layr4'; did you mean `student_model.layer4`?" + WRAPPER),
    ('full', P_PATH, "path: 'student_model.layer3', io: 'output',",
     "`Student4TRG` expected the student's `student_model.layer3` output among the hooked modules, got "
     "['projectors.layer4', 'student_model.layer4']; did you mean `student_model.layer4`?; add 'student_model.layer3' "
     'to `train.student.forward_hook.output`'),
    ('full', P_PATH, "path: 'student_model.layer4', io: 'out',",
     "expected `io` to be one of 'input', 'output', got 'out'; did you mean `output`?" + PROJECTOR),
    ('full', 'layer4: {path', 'layer.4: {path',
     "expected the names under `projectors` to be identifiers without dots, got 'layer.4'" + WRAPPER),
    ('full', 'layer4: {path', '4: {path',
     'expected the names under `projectors` to be identifiers without dots, got 4' + WRAPPER),
    ('full', 'layer4: {path', 'values: {path',
     "expected the names under `projectors` to differ from the attributes of a module, got 'values'" + WRAPPER),
    ('full', 'projectors:\n', 'projections:\n',
     'got `projections`; did you mean `projectors`?; change it under the `kwargs:` of `Student4TRG`'),
    ('full', 'layer4: {path', '- {path',
     'expected `projectors` to be a mapping of names to {path, io, in_features, out_features}, got ['),
    ('full', 'out_features: 12', 'out_features: 12, tokens: 2',
     "'num_prefix_tokens', 'grid_size', 'key'], got 2" + PROJECTOR),
    ('full', 'out_features: 12', 'out_features: 12, tokens: {patch_size: 3}',
     'expected `patch_size` to divide the feature map 4 x 4, got 3; a projector of `Student4TRG` read '
     '`student_model.layer4`, change its `tokens:` or its `path:` under `projectors:`'),
    ('full', 'projectors:\n', 'projector_ckpt: 3\n      projectors:\n',
     "expected `projector_ckpt` to be a non-empty string, got 3 (a number in YAML; write '3')" + WRAPPER),
    ('full', 'projectors:\n', 'find_unused_parameters: 3\n      projectors:\n',
     'expected `find_unused_parameters` to be true or false, got 3' + WRAPPER),
]  # fmt: skip

TABLE = KEYWORDS + TOKEN_OPTIONS + HOOKED_MODULES + PROJECTORS
