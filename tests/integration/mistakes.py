"""The table of :mod:`test_train_mistakes`: a YAML, one change that makes it wrong, and parts of the message."""

from tiny import CE, SIDES, TRG, TRG_SIDES, stage

NEAREST_HINT = 'is the package that registers it named under `dependencies:`?'
WRAPPED = stage(1, CE + TRG, sides=TRG_SIDES)
HOOKED = SIDES.replace(
    "student: {forward_proc: 'forward_batch_only'",
    "student: {forward_hook: {output: ['layer9']}, forward_proc: 'forward_batch_only'",
)
SGD_KEY = "key: 'SGD'"
FROZEN = HOOKED.replace("['layer9']", "['layer2']").replace(
    'student: {', "student: {frozen_modules: ['layer1', 'layer2'], "
)
FROZEN = FROZEN.replace('teacher: {', "teacher: {forward_hook: {output: ['layer2']}, ")
CONTEXT = f'context:{TRG.partition("context:")[2]}'.replace('student_model.layer2', 'layer2')
PLATEAU = "scheduler: {{key: 'ReduceLROnPlateau', kwargs: {{{}}}}}\n"

# name: (text of `train:`, what is replaced in the whole YAML, by what, parts of the message)
MISTAKES = {
    'yaml_syntax': (stage(1, CE), 'log_freq: 10', 'log_freq: [10', ['to be valid YAML', 'on line ']),
    'unknown_tag': (stage(1, CE), 'log_freq: 10', 'log_freq: !wrong 10', ['to be valid YAML', 'on line 16: could not']),
    'unknown_dataset_class': (stage(1, CE), "'tiny.Blobs'", "'tiny.Blob'", ['AttributeError', "no attribute 'Blob'"]),
    'missing_package': (stage(1, CE), "name: 'tiny'", "name: 'tinny'", ['`dependencies` (line 2)', "'tinny'"]),
    'no_test_section': (stage(1, CE), '\ntest:', '\ntests:', ['expected `test` to be a mapping, got nothing']),
    'no_train_section': (stage(1, CE), '\ntrain:', '\ntraining:', ['expected `train` to be a mapping, got nothing']),
    'no_models_section': (stage(1, CE), '\nmodels:', '\nmodel:', ['expected `models` to be a mapping, got nothing']),
    'no_datasets_section': (
        stage(1, CE),
        '\ndatasets:',
        '\ndata:',
        ['expected `datasets` to be a mapping, got nothing'],
    ),
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
            'nearest: `tiny_net`',
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
    'unknown_loss': (
        stage(1, CE),
        "'CrossEntropyLoss'",
        "'CrossEntropy'",
        [
            'sub_terms.ce.criterion.key`',
            "registered loss, got 'CrossEntropy'; nearest: `CrossEntropyLoss`",
            NEAREST_HINT,
        ],
    ),
    'our_loss_without_our_package': (
        stage(1, CE).replace('CrossEntropyLoss', 'TRGLos'),
        '',
        '',
        ['nearest: `TRGLoss`', NEAREST_HINT],
    ),
    'empty_loss_kwargs': (
        stage(1, CE),
        "kwargs: {reduction: 'mean'}",
        'kwargs: ',
        ['write `kwargs: {}` under `train.criterion.kwargs.sub_terms.ce.criterion`'],
    ),
    'missing_loss_kwargs': (
        stage(1, CE),
        ", kwargs: {reduction: 'mean'}",
        '',
        ['write `kwargs: {}` under `train.criterion.kwargs.sub_terms.ce.criterion`'],
    ),
    'missing_weight': (stage(1, CE), 'weight: 1.0', '', ['sub_terms.ce` (line', 'add `weight: 1.0`']),
    'unknown_loss_wrapper': (
        stage(1, CE),
        "'SimpleLossWrapper'",
        "'SimpleWrapper'",
        ['registered loss wrapper', '`SimpleLossWrapper`'],
    ),
    'unknown_total_loss': (
        stage(1, CE),
        "'WeightedSumLoss'",
        "'WeightedSum'",
        ['high-level loss', '`WeightedSumLoss`'],
    ),
    'unknown_optimizer': (stage(1, CE), SGD_KEY, "key: 'sgd'", ["registered optimizer, got 'sgd'", '`SGD`']),
    'empty_optimizer_kwargs': (
        stage(1, CE),
        'kwargs: {lr: 0.05, momentum: 0.9}',
        'kwargs: ',
        ['write `kwargs: {}` under `train.optimizer`'],
    ),
    'wrong_optimizer_argument': (
        stage(1, CE),
        'momentum: 0.9',
        'momentun: 0.9',
        [
            "`SGD` refused its arguments: got an unexpected keyword argument 'momentun'",
            'change `train.optimizer.kwargs` (line 28)',
        ],
    ),
    'optimizer_that_refuses_a_value': (
        stage(1, CE),
        'lr: 0.05',
        'lr: -0.05',
        ['`SGD` refused its arguments, ValueError: Invalid learning rate: -0.05; change `train.optimizer.kwargs`'],
    ),
    'no_optimizer': (stage(1, CE, optimizer=''), '', '', ['expected `train.optimizer` to be a mapping, got nothing']),
    'unknown_scheduler': (
        stage(1, CE, more="scheduler: {key: 'CosineAnealingLR', kwargs: {}}\n"),
        '',
        '',
        ['registered scheduler', '`CosineAnnealingLR`'],
    ),
    'unknown_process': (
        stage(1, CE, more="pre_epoch_process: 'pre_epoch_process_with_trq'\n"),
        '',
        '',
        ['registered pre-epoch process', '`pre_epoch_process_with_trg`'],
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
            "modules of `TinyNet`, got 'layer9', where there is nothing; nearest: `layer",
            '`layer1`, `layer2`, `fc`',
        ],
    ),
    'hook_below_the_wrapper': (
        WRAPPED,
        "output: ['student_model.layer2', ",
        "output: ['layer2', ",
        ["modules of `Student4TRG`, got 'layer2'", 'nearest: `student_model.layer2`', '`student_model`, `projectors`'],
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
    'dataset_id': (
        stage(1, CE),
        "  dataset_id: 'train'",
        "  dataset_id: 'training'",
        ['`train.train_data_loader.dataset_id`', "one of the keys under `datasets:`, ['train', 'val'], got 'training'"],
    ),
    'test_dataset_id': (
        stage(1, CE),
        "  test_data_loader:\n    dataset_id: 'val'",
        "  test_data_loader:\n    dataset_id: 'test'",
        ['`test.test_data_loader.dataset_id`', "got 'test'"],
    ),
    'feature_of_a_host_loss_that_was_not_hooked': (
        stage(1, CE),
        "module_path: '.', io: 'output'",
        "module_path: 'fc', io: 'output'",
        ["expected a key 'fc' and found none", "hooked now: {'teacher': [], 'student': []}"],
    ),
    'no_sampler': (
        stage(1, CE),
        '  sampler:',
        '  samplers:',
        ['`train.train_data_loader` (line', 'to have a `sampler:`'],
    ),
    'all_that_the_terms_read_is_frozen': (
        stage(1, CONTEXT, sides=FROZEN),
        '',
        '',
        ['got one that depends on none: what its terms read of the student is frozen', '`frozen_modules:`'],
    ),
    'num_epochs': (stage(0, CE), '', '', ['expected `train.num_epochs` (line 17) to be an integer >= 1, got 0']),
    'teacher_without_its_file': (
        stage(1, CE),
        'src_ckpt: }',
        'src_ckpt: ./resource/teacher.pt}',
        ['(line 9) to be a file of weights, got ./resource/teacher.pt (looked for in /', 'not exist; correct the path'],
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
    'plateau_that_waits_for_a_fall': (
        stage(1, CE, more=PLATEAU.format('patience: 0')),
        '',
        '',
        ["`train.scheduler.kwargs` (line 29) to have `mode: 'max'`", 'got nothing, which means min'],
    ),
    'plateau_that_says_min': (
        stage(1, CE, more=PLATEAU.format("mode: 'min'")),
        '',
        '',
        ["to have `mode: 'max'`, as `train` tells this scheduler the validation top-1", "got 'min'; write"],
    ),
    'plateau_after_steps': (
        stage(1, CE, more=PLATEAU.format("mode: 'max'").replace('kwargs', 'scheduling_step: 1, kwargs')),
        '',
        '',
        ['`train.scheduler.scheduling_step` (line 29) to be 0', 'after each epoch, got 1; remove it'],
    ),
    'no_training_batch': (
        stage(1, CE),
        'batch_size: 8',
        'batch_size: 80, drop_last: True',
        ['lower `batch_size:` or set `drop_last: False`'],
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
    'our_loss_says_it_itself': (
        WRAPPED,
        'num_neighbors: 3',
        'num_neighbors: 0',
        ['expected `num_neighbors` to be an integer >= 1'],
    ),
    'our_wrapper_says_it_itself': (WRAPPED, 'out_features: 6', 'out_feature: 6', ['`out_features`']),
    'feature_that_was_not_hooked': (
        WRAPPED,
        "teacher_module_path: 'layer2'",
        "teacher_module_path: 'layer1'",
        ["add 'layer1' to `train.teacher.forward_hook.output`"],
    ),
}
FOUND_IN_THE_FIRST_STEP = (
    'all_that_the_terms_read_is_frozen',
    'no_training_batch',
    'logits_with_a_feature_beside_them',
    'logits_with_a_feature_as_wide',
    'feature_that_was_not_hooked',
    'feature_of_a_host_loss_that_was_not_hooked',
)
