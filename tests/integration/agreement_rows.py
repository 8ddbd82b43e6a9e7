"""A table of :mod:`test_mistakes`: what is replaced in a good YAML by what, and parts of the message."""

from torchdistill.misc import log

LR = 'lr: 0.05'
SGD = "key: 'SGD', kwargs: {lr: 0.05, momentum: 0.9}"
STEP_LR = "'StepLR', kwargs: {step_size: 1, gamma: 0.5}"
LOADER = 'batch_size: 8, num_workers: 0'
RANDOM = "RandomSampler'}, kwargs: }"
VAL = "val: !import_call {key: 'tiny.Blobs', init: {kwargs: {size: 48, noise: 0}}}"
AT_LR, AT_LOADER = '`train.optimizer.kwargs.lr` (line 28)', '`train.train_data_loader.kwargs'

NUMBERS = {
    'exponent without a point': (LR, 'lr: 5e-2', [f'{AT_LR} to be a number, got `5e-2`, which is text', '`5.0e-2`']),
    'exponent without a sign': (LR, 'lr: 5.0e2', ['got `5.0e2`, which is text', 'write `5.0e+2` or `500`']),
    'octal': ('batch_size: 8', 'batch_size: 010', ['got `010`, which is 8 in YAML 1.1; write `10`']),
    'base 60': ('num_epochs: 2', 'num_epochs: 1:30', ['got `1:30`, which is 90 in YAML 1.1; write `90`']),
    'in a list': (STEP_LR, "'MultiStepLR', kwargs: {milestones: [1, 2e0]}", ['milestones.1` (line 29)', '`2e0`']),
    'of a data set': ('size: 48', 'size: 1e2', ['`datasets.val.init.kwargs.size` (line 7)', '`100`']),
    'of a term': ('weight: 1.0', 'weight: 1e-1', ['sub_terms.ce.weight` (line 39)', '`1.0e-1`']),
    'quoted, by annotation': (LR, "lr: '0.05'", [f"{AT_LR} to be a number, got '0.05', which is text; write `0.05`"]),
    'quoted, by docstring': ('temperature: 4.0', "temperature: '4.0'", ['.kd.criterion.kwargs.temperature` (line 44)']),
    'quoted, by default': ('width: 4', "width: '4'", ['`models.student_model.kwargs.width` (line 12)', 'write `4`']),
    'quoted, in a list': (SGD, "key: 'Adam', kwargs: {betas: ['0.9', 0.99]}", ['`train.optimizer.kwargs.betas.0`']),
    'quoted, of a loader': ('batch_size: 8', "batch_size: '8'", [f'{AT_LOADER}.batch_size` (line 21) to be a whole']),
    'quoted, of the host': ('0.9}}', "0.9}, max_grad_norm: '5'}", ["`train.optimizer.max_grad_norm` (line 28)", '`5`']),
    'quoted, of a module': (
        '0.9}}',
        "0.9}, module_wise_configs: [{module: 'fc', kwargs: {lr: '0.1'}}]}",
        ['`train.optimizer.module_wise_configs.0.kwargs.lr` (line 28)'],
    ),
    'word': (LR, "lr: 'big'", [f"{AT_LR} to be a number, got 'big'; write a number"]),
    'boolean': (LR, 'lr: on', [f'{AT_LR} to be a number, got True (YAML 1.1 reads yes, no, on and off as booleans)']),
    'boolean weight': ('weight: 1.0', 'weight: yes', ['sub_terms.ce.weight` (line 39) to be a number, got True']),
    'nothing': (LR, 'lr:', [f'{AT_LR} to be a number, got nothing']),
    'list': (LR, 'lr: [0.05]', [f'{AT_LR} to be a number, got [0.05]']),
    'fraction of an epoch': ('num_epochs: 2', 'num_epochs: 2.5', ['`train.num_epochs` (line 17) to be a whole number']),
    'no batches': ('batch_size: 8', 'batch_size:', [f'{AT_LOADER}.batch_size` (line 21) to be a whole number']),
    'boolean for text': ("'batchmean'", 'no', ['criterion.kwargs.reduction` (line 44) to be text, got False']),
    'text for a boolean': ('momentum: 0.9', "nesterov: 'no'", ["`train.optimizer.kwargs.nesterov`", 'true or false']),
    'boolean as a name': ('momentum: 0.9', 'on: 0.9', ['keys under `train.optimizer.kwargs` (line 28) to be names']),
}  # fmt: skip

REHEARSED = {
    'optimizer': (LR, 'lr: -1.0', ['`SGD` refused its arguments', 'change `train.optimizer.kwargs` (line 28)']),
    'optimizer of its own kind': (SGD, "key: 'LBFGS', kwargs: {}", ['first step of the optimizer failed', "'closure'"]),
    'scheduler': (STEP_LR, "'ReduceLROnPlateau', kwargs: {mode: 'up'}", ['`train.scheduler.kwargs` (line 29)']),
    'scheduler that ends': (
        STEP_LR,
        "'OneCycleLR', kwargs: {max_lr: 0.1, total_steps: 1}",
        ['`OneCycleLR` failed in epoch 2, ValueError: Tried to step 2 times', '`train.scheduler.kwargs` (line 29)'],
    ),
    'scheduler that divides by 0': ('step_size: 1', 'step_size: 0', ['`StepLR` failed in epoch 1, ZeroDivision']),
    'workers': (LOADER, 'batch_size: 8, num_workers: -1', ['`train.train_data_loader` (line 18) refused its']),
    'prefetch without workers': (LOADER, f'{LOADER}, prefetch_factor: 2', ['refused its', f'change {AT_LOADER}`']),
    'persistent without workers': (LOADER, f'{LOADER}, persistent_workers: True', ['persistent_workers option needs']),
    'timeout without workers': (LOADER, f'{LOADER}, timeout: 5', ['refused its', f'change {AT_LOADER}` (line 21)']),
    'shuffle beside a sampler': (LOADER, f'{LOADER}, shuffle: True', ['mutually exclusive with shuffle']),
    'sampler': (RANDOM, "RandomSampler'}, kwargs: {num_samples: -3}}", ['sampler.kwargs` (line 20)', 'num_samples=-3']),
    'batch sampler and batch size': (
        f'kwargs: {{{LOADER}}}',
        "batch_sampler: {key: 'BatchSampler', kwargs: {batch_size: 8, drop_last: True}}\n    kwargs: {batch_size: 8}",
        ['batch_sampler option is mutually exclusive', '`train.train_data_loader.batch_sampler.kwargs` (line 21)'],
    ),
    'validation loader': ('batch_size: 16,', 'batch_size: -1,', ['`train.val_data_loader` (line 22) refused']),
}  # fmt: skip

ENGINES = ['`tracker.engine` (line 8)', 'trackio, wandb'] if hasattr(log, 'setup_tracker') else ['1.1.5 or later']
SHAPES = {
    'terms': ('sub_terms:\n', 'sub_terms: [1]\n      old:\n', ['sub_terms` (line 33) to be a mapping, got [1]']),
    'data set': (VAL, 'val: 3', ['`datasets.val` (line 7) to be a data set that a tag makes, got 3']),
    'key': ("key: 'SGD'", "key: ['SGD']", ["`train.optimizer.key` (line 28)", "got ['SGD']"]),
    'model key': ("    key: 'tiny_net'", "    key: [a]", ['`models.student_model.key` (line 11) to be the name of a']),
    'wrapper': ('batch_only\'}', "batch_only', auxiliary_model_wrapper: [a]}", ['auxiliary_model_wrapper` (line 27)']),
    'adaptations': ("batch_only'}", "batch_only', adaptations: 3}", ['`train.student.adaptations` (line 27)']),
    'tracker': ('models:\n', 'tracker: [wandb]\nmodels:\n', ['`tracker` (line 8) to be a mapping']),
    'engine': ('models:\n', 'tracker: {engine: mlflow}\nmodels:\n', ENGINES),
}  # fmt: skip
ROWS = NUMBERS | REHEARSED | SHAPES
