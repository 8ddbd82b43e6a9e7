"""The table of :mod:`test_mistakes`: what is replaced in a good YAML by what, and parts of the message."""

from tiny import CE, KD, SIDES, STEP_LR, TRG, TRG_SIDES, stage, stages
from torchdistill.misc import log

ONE = stage(1, CE, more=STEP_LR)
GOOD = stage(2, CE + KD, more=STEP_LR)
WITH_TRG = stage(1, CE + TRG, sides=TRG_SIDES)
LOGITS_ONLY = stage(1, CE, sides=SIDES.replace('forward_batch_only', 'forward_logits_only'))
# Of the student, the one term reads `layer2`, and nothing is trained up to there.
FROZEN = stage(1, f'context:{TRG.partition("context:")[2]}', sides="""
teacher: {forward_hook: {output: ['layer2']}, forward_proc: 'forward_batch_only', requires_grad: False}
student: {frozen_modules: ['layer1', 'layer2'], forward_hook: {output: ['layer2']}, forward_proc: 'forward_batch_only'}
""").replace('student_model.layer2', 'layer2')  # fmt: skip

STUDENT = "    key: 'tiny_net'"
STUDENT_KWARGS = 'kwargs: {width: 4}'
STUDENT_SIDE = "student: {forward_proc: 'forward_batch_only'"
SGD = "key: 'SGD', kwargs: {lr: 0.05, momentum: 0.9}"
LR, AT_LR = 'lr: 0.05', '`train.optimizer.kwargs.lr` (line 28)'
STEPS = "'StepLR', kwargs: {step_size: 1, gamma: 0.5}"
LOADER, AT_LOADER = 'batch_size: 8, num_workers: 0', '`train.train_data_loader.kwargs'
BATCH_SAMPLER = "batch_sampler: {key: 'BatchSampler', kwargs: {batch_size: 8, drop_last: True}}"
RANDOM = "RandomSampler'}, kwargs: }"
VAL = "val: !import_call {key: 'tiny.Blobs', init: {kwargs: {size: 48, noise: 0}}}"
NEAREST_HINT = 'is the package that registers it named under `dependencies:`?'
OF_THE_LOSS = 'write `kwargs: {}` under `train.criterion.kwargs.sub_terms.ce.criterion`'


def hooked(output):
    return STUDENT_SIDE.replace('{', f'{{forward_hook: {{output: {output}}}, ')


# name: (what of the YAML, what is there instead, parts of the message, the `train:` block if it is not GOOD)
SECTIONS = {
    'YAML syntax': ('log_freq: 10', 'log_freq: [10', ['to be valid YAML', 'on line ']),
    'unknown tag': ('log_freq: 10', 'log_freq: !wrong 10', ['to be valid YAML', 'on line 16: could not']),
    'no models': ('\nmodels:', '\nmodel:', ['expected `models` to be a mapping, got nothing']),
    'no test': ('\ntest:', '\ntests:', ['expected `test` to be a mapping, got nothing']),
    'no train': ('\ntrain:', '\ntraining:', ['expected `train` to be a mapping, got nothing']),
    'no datasets': ('\ndatasets:', '\ndata:', ['expected `datasets` to be a mapping, got nothing']),
    'missing package': ("name: 'tiny'", "name: 'tinny'", ['`dependencies` (line 2)', "'tinny'"]),
    'tracker': ('models:\n', 'tracker: [wandb]\nmodels:\n', ['`tracker` (line 8) to be a mapping']),
    'engine': ('models:\n', 'tracker: {engine: mlflow}\nmodels:\n',
     ['`tracker.engine` (line 8)', 'trackio, wandb'] if hasattr(log, 'setup_tracker') else ['1.1.5 or later']),
}  # fmt: skip

MODELS = {
    'student block without a teacher': ('  teacher_model:', '  other_model:',
     ['rename it to `model:`, or add `models.teacher_model`']),
    'no student': ('student_model:', 'studnet_model:', ['expected `models.model` to be a mapping']),
    'no dst_ckpt': ('dst_ckpt:', 'dst:', ['`models.student_model` (line 10)', 'add one, such as `dst_ckpt:']),
    'unknown model': (STUDENT, "    key: 'tiny_nett'",
     ["`models.student_model.key` (line 11) to be the key of a registered model, got 'tiny_nett'",
      'did you mean `tiny_net`', NEAREST_HINT]),
    'model key': (STUDENT, '    key: [a]', ['`models.student_model.key` (line 11) to be the name of a']),
    'module of torchvision': (STUDENT, "    key: 'resnet'",
     ["got 'resnet', a module of torchvision that hides any model", '`resnet']),
    'own model hidden by torchvision': (STUDENT, "    key: 'vgg11'",
     ["to name one model, got 'vgg11', which `tiny` registers", "`@register_model(key='own_vgg11')`"]),
    'repository hidden by torchvision': (STUDENT, "    repo_or_dir: 'me/models'\n    key: 'resnet18'",
     ["to be a model of `me/models`, got 'resnet18'", 'does not read `models.student_model.repo_or_dir` (line 11)']),
    'wrong argument of a model': (STUDENT_KWARGS, 'kwargs: {widht: 4}',
     ['`tiny_net` refused its arguments', "'widht'", 'change `models.student_model.kwargs` (line 12)']),
    'empty kwargs of a model': (STUDENT_KWARGS, 'kwargs:',
     ['expected `models.student_model.kwargs` (line 12) to be a mapping, got nothing', 'write `kwargs: {}` under']),
    'teacher without its file': ('src_ckpt: }', 'src_ckpt: ./resource/teacher.pt}',
     ['(line 9) to be a file of weights, got ./resource/teacher.pt (looked for in /', 'not exist; correct the path']),
    'student without its file': ('src_ckpt:\n', 'src_ckpt: ./typo.pt\n',
     ['`models.student_model.src_ckpt` (line 13) to be a file of weights, got ./typo.pt (looked for in /']),
    'stage without its file': ('requires_grad', "src_ckpt: '~/typo.pt', requires_grad",
     ['`train.teacher.src_ckpt` (line 26) to be a file of weights, got /', '/typo.pt, which does not exist']),
    'empty path': ('src_ckpt: }', "src_ckpt: ''}",
     ["`models.teacher_model.src_ckpt` (line 9) to be a path or an address, got ''; write nothing for none"]),
    'feature beside the logits': (STUDENT, "    key: 'tiny_pair_net'",
     ['expected `tiny_pair_net` to return logits, got tuple (Tensor [8, 6], Tensor [8, 4])',
      "change `train.student.forward_proc` (line 27) to 'forward_logits_only'"]),
    'feature as wide as the logits': (f'{STUDENT}\n    {STUDENT_KWARGS}',
     "    key: 'tiny_pair_net'\n    kwargs: {width: 6, scale: 2}",
     ['expected `tiny_pair_net` to return logits', 'change `forward_proc:` of this model, or return `.logits`'],
     LOGITS_ONLY),
}  # fmt: skip

SIDES_OF_A_STAGE = {
    'no forward_proc': ("teacher: {forward_proc: 'forward_batch_only', ", 'teacher: {',
     ['expected `train.teacher`', "add `forward_proc: 'forward_batch_only'`"]),
    'unknown forward_proc': ("'forward_batch_only'", "'forward_batch'",
     ['registered forward process', '`forward_batch_only`']),
    'unknown auxiliary wrapper': ("'Student4TRG'", "'Student4TGR'",
     ['registered auxiliary model wrapper', '`Student4TRG`'], WITH_TRG),
    'auxiliary wrapper': (STUDENT_SIDE, f'{STUDENT_SIDE}, auxiliary_model_wrapper: [a]',
     ['auxiliary_model_wrapper` (line 27)']),
    'adaptations': (STUDENT_SIDE, f'{STUDENT_SIDE}, adaptations: 3', ['`train.student.adaptations` (line 27)']),
    'hook': (STUDENT_SIDE, hooked(['layer9']),
     ['`train.student.forward_hook.output`', '`layer1`, `layer2`, `fc`',
      "modules of `TinyNet`, got 'layer9', where there is nothing; did you mean `layer"]),
    'hook below the wrapper': ("output: ['student_model.layer2', ", "output: ['layer2', ",
     ["modules of `Student4TRG`, got 'layer2'", 'did you mean `student_model.layer2`',
      '`student_model`, `projectors`'], WITH_TRG),
    'hook on a projector': ("'projectors.p']", "'projectors.q']",
     ["modules of `Student4TRG`, got 'projectors.q'", '`projectors.p`'], WITH_TRG),
    'hook on a parameter': (STUDENT_SIDE, hooked(['fc.weight']),
     ["got 'fc.weight', where there is a Parameter without a forward pass"]),
    'hook without a list': (STUDENT_SIDE, hooked("'fc'"), ["a list of module paths, got 'fc'; write ['fc']"]),
    'frozen below the terms': ('', '',
     ['got one that depends on none: what its terms read of the student is frozen', '`frozen_modules:`'], FROZEN),
    'our wrapper says it itself': ('out_features: 6', 'out_feature: 6', ['`out_features`'], WITH_TRG),
}  # fmt: skip

TERMS = {
    'terms': ('sub_terms:\n', 'sub_terms: [1]\n      old:\n', ['sub_terms` (line 33) to be a mapping, got [1]']),
    'unknown loss': ("'CrossEntropyLoss'", "'CrossEntropy'",
     ['sub_terms.ce.criterion.key`', "registered loss, got 'CrossEntropy'; did you mean `CrossEntropyLoss`",
      NEAREST_HINT]),
    'loss of ours': ("'CrossEntropyLoss'", "'TRGLos'", ['did you mean `TRGLoss`', NEAREST_HINT]),
    'empty kwargs of a loss': ("kwargs: {reduction: 'mean'}", 'kwargs: ', [OF_THE_LOSS]),
    'no kwargs of a loss': (", kwargs: {reduction: 'mean'}", '', [OF_THE_LOSS]),
    'no weight': ('weight: 1.0', '', ['sub_terms.ce` (line', 'add `weight: 1.0`']),
    'unknown loss wrapper': ("'SimpleLossWrapper'", "'SimpleWrapper'",
     ['registered loss wrapper', '`SimpleLossWrapper`']),
    'unknown total loss': ("'WeightedSumLoss'", "'WeightedSum'", ['high-level loss', '`WeightedSumLoss`']),
    'feature of a host loss that was not hooked': ("module_path: '.', io: 'output'", "module_path: 'fc', io: 'output'",
     ["expected a key 'fc' and found none", "hooked now: {'teacher': [], 'student': []}"]),
    'feature that was not hooked': ("teacher_module_path: 'layer2'", "teacher_module_path: 'layer1'",
     ["add 'layer1' to `train.teacher.forward_hook.output`"], WITH_TRG),
    'our loss says it itself': ('num_neighbors: 3', 'num_neighbors: 0',
     ['expected `num_neighbors` to be an integer >= 1'], WITH_TRG),
}  # fmt: skip

TRAINING = {
    'no epochs': ('num_epochs: 2', 'num_epochs: 0',
     ['expected `train.num_epochs` (line 17) to be an integer >= 1, got 0']),
    'unknown process': ('scheduler:', "pre_epoch_process: 'pre_epoch_process_with_trq'\n  scheduler:",
     ['registered pre-epoch process', '`pre_epoch_process_with_trg`']),
    'no optimizer': ('optimizer:', 'optimiser:', ['expected `train.optimizer` to be a mapping, got nothing']),
    'optimizer key': ("key: 'SGD'", "key: ['SGD']", ["`train.optimizer.key` (line 28)", "got ['SGD']"]),
    'unknown optimizer': ("key: 'SGD'", "key: 'sgd'", ["registered optimizer, got 'sgd'", '`SGD`']),
    'empty kwargs of an optimizer': (SGD, "key: 'SGD', kwargs: ", ['write `kwargs: {}` under `train.optimizer`']),
    'wrong argument of an optimizer': ('momentum: 0.9', 'momentun: 0.9',
     ["`SGD` refused its arguments: got an unexpected keyword argument 'momentun'",
      'change `train.optimizer.kwargs` (line 28)']),
    'optimizer': (LR, 'lr: -0.05',
     ['`SGD` refused its arguments, ValueError: Invalid learning rate: -0.05; ',
      'change `train.optimizer.kwargs` (line 28)']),
    'optimizer of its own kind': (SGD, "key: 'LBFGS', kwargs: {}", ['first step of the optimizer failed', "'closure'"]),
    'unknown scheduler': ("'StepLR'", "'CosineAnealingLR'", ['registered scheduler', '`CosineAnnealingLR`']),
    'scheduler': (STEPS, "'ReduceLROnPlateau', kwargs: {mode: 'up'}", ['`train.scheduler.kwargs` (line 29)']),
    'scheduler that ends': (STEPS, "'OneCycleLR', kwargs: {max_lr: 0.1, total_steps: 1}",
     ['`OneCycleLR` failed in epoch 2, ValueError: Tried to step 2 times', '`train.scheduler.kwargs` (line 29)']),
    'scheduler that divides by 0': ('step_size: 1', 'step_size: 0', ['`StepLR` failed in epoch 1, ZeroDivision']),
    'plateau that waits for a fall': (STEPS, "'ReduceLROnPlateau', kwargs: {patience: 0}",
     ["`train.scheduler.kwargs` (line 29) to have `mode: 'max'`", 'got nothing, which means min']),
    'plateau that says min': (STEPS, "'ReduceLROnPlateau', kwargs: {mode: 'min'}",
     ["to have `mode: 'max'`, as `train` tells this scheduler the validation top-1", "got 'min'; write"]),
    'plateau after steps': (STEPS, "'ReduceLROnPlateau', scheduling_step: 1, kwargs: {mode: 'max'}",
     ['`train.scheduler.scheduling_step` (line 29) to be 0', 'after each epoch, got 1; remove it']),
}  # fmt: skip

LATER_STAGES = {
    'optimizer of stage2': ('', '', ['change `train.stage2.optimizer.kwargs`'],
     stages(ONE, ONE.replace(LR, 'lr: -1.0'))),
    'loader of stage2': ('', '', ['`train.stage2.train_data_loader`'],
     stages(ONE, ONE.replace('batch_size: 8', 'batch_size: 0'))),
    'scheduler of stage2': ('', '', ['change `train.stage2.scheduler.kwargs`'],
     stages(ONE, ONE.replace('step_size: 1', 'step_size: 0'))),
    'hook of stage2': ('', '', ['`train.stage2.student.forward_hook.output`'],
     stages(ONE, ONE.replace(STUDENT_SIDE, hooked(['layer9'])))),
    'no stage2': ('', '', ['to be stage1, stage2, got stage1, stage3'],
     stages(ONE, ONE, ONE).replace('stage2:', 'old:')),
}  # fmt: skip

DATA = {
    'unknown class': ("'tiny.Blobs'", "'tiny.Blob'", ['AttributeError', "no attribute 'Blob'"]),
    'data set': (VAL, 'val: 3', ['`datasets.val` (line 7) to be a data set that a tag makes, got 3']),
    'dataset_id': ("  dataset_id: 'train'", "  dataset_id: 'training'",
     ['`train.train_data_loader.dataset_id`', "one of the keys under `datasets:`, ['train', 'val'], got 'training'"]),
    'dataset_id of the test': ("test_data_loader:\n    dataset_id: 'val'", "test_data_loader:\n    dataset_id: 'test'",
     ['`test.test_data_loader.dataset_id`', "got 'test'"]),
    'no batch': ('batch_size: 8', 'batch_size: 80, drop_last: True',
     ['lower `batch_size:` or set `drop_last: False`']),
    'no sampler': ('  sampler:', '  samplers:', ['`train.train_data_loader` (line', 'to have a `sampler:`']),
    'sampler': (RANDOM, "RandomSampler'}, kwargs: {num_samples: -3}}", ['sampler.kwargs` (line 20)', 'num_samples=-3']),
    'batch sampler and batch size': (f'kwargs: {{{LOADER}}}',
     f'{BATCH_SAMPLER}\n    kwargs: {{batch_size: 8}}',
     ['batch_sampler option is mutually exclusive', '`train.train_data_loader.batch_sampler.kwargs` (line 21)']),
    'workers': (LOADER, 'batch_size: 8, num_workers: -1', ['`train.train_data_loader` (line 18) refused its']),
    'prefetch without workers': (LOADER, f'{LOADER}, prefetch_factor: 2', ['refused its', f'change {AT_LOADER}`']),
    'persistent without workers': (LOADER, f'{LOADER}, persistent_workers: True', ['persistent_workers option needs']),
    'timeout without workers': (LOADER, f'{LOADER}, timeout: 5', ['refused its', f'change {AT_LOADER}` (line 21)']),
    'shuffle beside a sampler': (LOADER, f'{LOADER}, shuffle: True', ['mutually exclusive with shuffle']),
    'test loader': ('test:\n  test_data_loader:\n', f'test:\n  test_data_loader:\n    {BATCH_SAMPLER}\n',
     ['batch_sampler option is mutually exclusive', '`test.test_data_loader.batch_sampler.kwargs` (line 49)']),
    'validation loader': ('batch_size: 16,', 'batch_size: -1,', ['`train.val_data_loader` (line 22) refused']),
}  # fmt: skip

NUMBERS = {
    'exponent without a point': (LR, 'lr: 5e-2', [f'{AT_LR} to be a number, got `5e-2`, which is text', '`5.0e-2`']),
    'exponent without a sign': (LR, 'lr: 5.0e2', ['got `5.0e2`, which is text', 'write `5.0e+2` or `500`']),
    'octal': ('batch_size: 8', 'batch_size: 010', ['got `010`, which is 8 in YAML 1.1; write `10`']),
    'base 60': ('num_epochs: 2', 'num_epochs: 1:30', ['got `1:30`, which is 90 in YAML 1.1; write `90`']),
    'in a list': (STEPS, "'MultiStepLR', kwargs: {milestones: [1, 2e0]}", ['milestones.1` (line 29)', '`2e0`']),
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
    'weight that moves': ('weight: 1.0', 'weight: {start: 1.0, end: 0.0}',
     ['sub_terms.ce.weight` (line 39) to be a number', 'a schedule stands in the `kwargs:` of our losses']),
    'boolean weight': ('weight: 1.0', 'weight: yes', ['sub_terms.ce.weight` (line 39) to be a number, got True']),
    'nothing': (LR, 'lr:', [f'{AT_LR} to be a number, got nothing']),
    'list': (LR, 'lr: [0.05]', [f'{AT_LR} to be a number, got [0.05]']),
    'fraction of an epoch': ('num_epochs: 2', 'num_epochs: 2.5', ['`train.num_epochs` (line 17) to be a whole number']),
    'no batches': ('batch_size: 8', 'batch_size:', [f'{AT_LOADER}.batch_size` (line 21) to be a whole number']),
    'boolean for text': ("'batchmean'", 'no', ['criterion.kwargs.reduction` (line 44) to be text, got False']),
    'text for a boolean': ('momentum: 0.9', "nesterov: 'no'", ["`train.optimizer.kwargs.nesterov`", 'true or false']),
    'boolean as a name': ('momentum: 0.9', 'on: 0.9', ['keys under `train.optimizer.kwargs` (line 28) to be names']),
}  # fmt: skip

TABLES = (SECTIONS, MODELS, SIDES_OF_A_STAGE, TERMS, TRAINING, LATER_STAGES, DATA, NUMBERS)
MISTAKES = {name: (*row, GOOD)[:4] for table in TABLES for name, row in table.items()}
# Of tags that `check` leaves alone, of the data, and of files, of which it warns.
TOLD_BY_TRAIN_ALONE = {
    'unknown tag',
    'no batch',
    'teacher without its file',
    'student without its file',
    'stage without its file',
}
FOUND_IN_THE_FIRST_STEP = {
    'frozen below the terms',
    'feature beside the logits',
    'feature that was not hooked',
    'feature of a host loss that was not hooked',
}
# `train` tells another batch, the file of the traceback, the data set's own line.
NEARLY_THE_SAME_WORDS = {
    'feature as wide as the logits',
    'feature of a host loss that was not hooked',
    'unknown class',
}
