"""BERTs of two small layers, their folders and YAMLs; nothing is downloaded."""

import torch
from host import indent
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *(f'word{number}' for number in range(40))]
LAYER = 'bert.encoder.layer.1'


def tiny_bert(width=16, seed=0, num_labels=3):
    """A classifier without dropout, so that a step can be repeated."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=32,
            num_labels=num_labels,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def save(folder, width, seed, num_labels=3):
    """Writes a model and its tokenizer as `from_pretrained` reads them."""
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(WORDS))
    tiny_bert(width, seed, num_labels).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)


def texts_yaml(folder, train, name='sst2'):
    """A YAML for the trainer of GLUE whose models are in `teacher` and `student` of a folder."""
    models = ''.join(
        f"{side}_model:\n  key: '{side}'\n  dst_ckpt: './trained'\n"
        + ''.join(
            f"  {block}: {{pretrained_model_name_or_path: '{folder / side}'}}\n"
            for block in ('config_kwargs', 'tokenizer_kwargs', 'model_kwargs')
        )
        for side in ('teacher', 'student')
    )
    loader = "{dataset_id: 'texts/val', sampler: {class_or_func: !import_get {key: "
    loader += "'torch.utils.data.SequentialSampler'}, kwargs: }, kwargs: {batch_size: 4}, requires_supp: False}"
    return (
        f"datasets:\n  glue:\n    name: '{name}'\n    raw_data_kwargs: {{}}\n"
        "    dataset_id_map: {train: 'texts/train', validation: 'texts/val'}\n"
        f'models:\n{indent(models, 2)}train:\n{indent(train, 2)}test:\n  test_data_loader: {loader}\n'
    )
