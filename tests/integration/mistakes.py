"""The table of :mod:`test_train_mistakes`: a YAML, one change that makes it wrong, and parts of the message."""

from mistakes_of_models import MISTAKES_OF_MODELS, NEAREST_HINT, WRAPPED
from tiny import CE, stage

SGD_KEY = "key: 'SGD'"
PLATEAU = "scheduler: {{key: 'ReduceLROnPlateau', kwargs: {{{}}}}}\n"

# name: (text of `train:`, what is replaced in the whole YAML, by what, parts of the message)
MISTAKES = {
    **MISTAKES_OF_MODELS,
    'yaml_syntax': (stage(1, CE), 'log_freq: 10', 'log_freq: [10', ['to be valid YAML', 'on line ']),
    'unknown_tag': (stage(1, CE), 'log_freq: 10', 'log_freq: !wrong 10', ['to be valid YAML', 'on line 16: could not']),
    'unknown_dataset_class': (stage(1, CE), "'tiny.Blobs'", "'tiny.Blob'", ['AttributeError', "no attribute 'Blob'"]),
    'missing_package': (stage(1, CE), "name: 'tiny'", "name: 'tinny'", ['`dependencies` (line 2)', "'tinny'"]),
    'no_test_section': (stage(1, CE), '\ntest:', '\ntests:', ['expected `test` to be a mapping, got nothing']),
    'no_train_section': (stage(1, CE), '\ntrain:', '\ntraining:', ['expected `train` to be a mapping, got nothing']),
    'no_datasets_section': (
        stage(1, CE),
        '\ndatasets:',
        '\ndata:',
        ['expected `datasets` to be a mapping, got nothing'],
    ),
    'unknown_loss': (
        stage(1, CE),
        "'CrossEntropyLoss'",
        "'CrossEntropy'",
        [
            'sub_terms.ce.criterion.key`',
            "registered loss, got 'CrossEntropy'; did you mean `CrossEntropyLoss`",
            NEAREST_HINT,
        ],
    ),
    'our_loss_without_our_package': (
        stage(1, CE).replace('CrossEntropyLoss', 'TRGLos'),
        '',
        '',
        ['did you mean `TRGLoss`', NEAREST_HINT],
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
        [
            '`SGD` refused its arguments, ValueError: Invalid learning rate: -0.05; ',
            'change `train.optimizer.kwargs` (line 28)',
        ],
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
    'num_epochs': (stage(0, CE), '', '', ['expected `train.num_epochs` (line 17) to be an integer >= 1, got 0']),
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
    'our_loss_says_it_itself': (
        WRAPPED,
        'num_neighbors: 3',
        'num_neighbors: 0',
        ['expected `num_neighbors` to be an integer >= 1'],
    ),
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
