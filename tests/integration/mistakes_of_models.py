"""The part of :mod:`mistakes` about models: their blocks, weights, wrappers, hooks and outputs."""

from tiny import CE, SIDES, TRG, TRG_SIDES, stage

NEAREST_HINT = 'is the package that registers it named under `dependencies:`?'
WRAPPED = stage(1, CE + TRG, sides=TRG_SIDES)
HOOKED = SIDES.replace(
    "student: {forward_proc: 'forward_batch_only'",
    "student: {forward_hook: {output: ['layer9']}, forward_proc: 'forward_batch_only'",
)
FROZEN = HOOKED.replace("['layer9']", "['layer2']").replace(
    'student: {', "student: {frozen_modules: ['layer1', 'layer2'], "
)
FROZEN = FROZEN.replace('teacher: {', "teacher: {forward_hook: {output: ['layer2']}, ")
CONTEXT = f'context:{TRG.partition("context:")[2]}'.replace('student_model.layer2', 'layer2')

# name: (text of `train:`, what is replaced in the whole YAML, by what, parts of the message)
MISTAKES_OF_MODELS = {
    'no_models_section': (stage(1, CE), '\nmodels:', '\nmodel:', ['expected `models` to be a mapping, got nothing']),
    'no_student': (stage(1, CE), 'student_model:', 'studnet_model:', ['expected `models.model` to be a mapping']),
    'no_dst_ckpt': (
        stage(1, CE),
        'dst_ckpt:',
        'dst:',
        ['`models.student_model` (line 10)', 'add one, such as `dst_ckpt:'],
    ),
    'unknown_model': (
        stage(1, CE),
        "    key: 'tiny_net'",
        "    key: 'tiny_nett'",
        [
            "`models.student_model.key` (line 11) to be the key of a registered model, got 'tiny_nett'",
            'did you mean `tiny_net`',
            NEAREST_HINT,
        ],
    ),
    'model_hidden_by_a_torchvision_module': (
        stage(1, CE),
        "    key: 'tiny_net'",
        "    key: 'resnet'",
        ["got 'resnet', a module of torchvision that hides any model", '`resnet'],
    ),
    'wrong_model_argument': (
        stage(1, CE),
        'kwargs: {width: 4}',
        'kwargs: {widht: 4}',
        ['`tiny_net` refused its arguments', "'widht'", 'change `models.student_model.kwargs` (line 12)'],
    ),
    'empty_model_kwargs': (
        stage(1, CE),
        'kwargs: {width: 4}',
        'kwargs:',
        ['expected `models.student_model.kwargs` (line 12) to be a mapping, got nothing', 'write `kwargs: {}` under'],
    ),
    'unknown_auxiliary_wrapper': (
        WRAPPED,
        "'Student4TRG'",
        "'Student4TGR'",
        ['registered auxiliary model wrapper', '`Student4TRG`'],
    ),
    'missing_forward_proc': (
        stage(1, CE, sides="teacher: {requires_grad: False}\nstudent: {forward_proc: 'forward_batch_only'}\n"),
        '',
        '',
        ['expected `train.teacher`', "add `forward_proc: 'forward_batch_only'`"],
    ),
    'unknown_forward_proc': (
        stage(1, CE),
        "'forward_batch_only'",
        "'forward_batch'",
        ['registered forward process', '`forward_batch_only`'],
    ),
    'student_hook': (
        stage(1, CE, sides=HOOKED),
        '',
        '',
        [
            '`train.student.forward_hook.output`',
            "modules of `TinyNet`, got 'layer9', where there is nothing; did you mean `layer",
            '`layer1`, `layer2`, `fc`',
        ],
    ),
    'hook_below_the_wrapper': (
        WRAPPED,
        "output: ['student_model.layer2', ",
        "output: ['layer2', ",
        [
            "modules of `Student4TRG`, got 'layer2'",
            'did you mean `student_model.layer2`',
            '`student_model`, `projectors`',
        ],
    ),
    'hook_on_a_projector': (
        WRAPPED,
        "'projectors.p']",
        "'projectors.q']",
        ["modules of `Student4TRG`, got 'projectors.q'", '`projectors.p`'],
    ),
    'hook_on_a_parameter': (
        stage(1, CE, sides=HOOKED.replace('layer9', 'fc.weight')),
        '',
        '',
        ["got 'fc.weight', where there is a Parameter without a forward pass"],
    ),
    'hook_without_a_list': (
        stage(1, CE, sides=HOOKED.replace("['layer9']", "'fc'")),
        '',
        '',
        ["a list of module paths, got 'fc'; write ['fc']"],
    ),
    'all_that_the_terms_read_is_frozen': (
        stage(1, CONTEXT, sides=FROZEN),
        '',
        '',
        ['got one that depends on none: what its terms read of the student is frozen', '`frozen_modules:`'],
    ),
    'teacher_without_its_file': (
        stage(1, CE),
        'src_ckpt: }',
        'src_ckpt: ./resource/teacher.pt}',
        [
            '(line 9) to be a file of weights, got ./resource/teacher.pt (looked for in /',
            'not exist; correct the path',
        ],
    ),
    'student_without_its_file': (
        stage(1, CE),
        'src_ckpt:\n',
        'src_ckpt: ./typo.pt\n',
        ['`models.student_model.src_ckpt` (line 13) to be a file of weights, got ./typo.pt (looked for in /'],
    ),
    'empty_path': (
        stage(1, CE),
        'src_ckpt: }',
        "src_ckpt: ''}",
        ["`models.teacher_model.src_ckpt` (line 9) to be a path or an address, got ''; write nothing for none"],
    ),
    'stage_without_its_file': (
        stage(1, CE, sides=SIDES.replace('requires_grad', "src_ckpt: '~/typo.pt', requires_grad")),
        '',
        '',
        ['`train.teacher.src_ckpt` (line 26) to be a file of weights, got /', '/typo.pt, which does not exist'],
    ),
    'own_model_hidden_by_torchvision': (
        stage(1, CE),
        "    key: 'tiny_net'",
        "    key: 'vgg11'",
        ["to name one model, got 'vgg11', which `tiny` registers", "`@register_model(key='own_vgg11')`"],
    ),
    'repository_hidden_by_torchvision': (
        stage(1, CE),
        "    key: 'tiny_net'",
        "    repo_or_dir: 'me/models'\n    key: 'resnet18'",
        ["to be a model of `me/models`, got 'resnet18'", 'does not read `models.student_model.repo_or_dir` (line 11)'],
    ),
    'logits_with_a_feature_beside_them': (
        stage(1, CE),
        "    key: 'tiny_net'",
        "    key: 'tiny_pair_net'",
        [
            'expected `tiny_pair_net` to return logits, got tuple (Tensor [8, 6], Tensor [8, 4])',
            "change `train.student.forward_proc` (line 27) to 'forward_logits_only'",
        ],
    ),
    'logits_with_a_feature_as_wide': (
        stage(1, CE, sides=SIDES.replace('forward_batch_only', 'forward_logits_only')),
        "    key: 'tiny_net'\n    kwargs: {width: 4}",
        "    key: 'scaled_pair_net'\n    kwargs: {width: 6}",
        ['expected `scaled_pair_net` to return logits', 'change `forward_proc:` of this model, or return `.logits`'],
    ),
    'our_wrapper_says_it_itself': (WRAPPED, 'out_features: 6', 'out_feature: 6', ['`out_features`']),
}
