"""A small set of real sentences and two small untrained BERTs, of what is installed: nothing is downloaded.

    python benchmarks/tasks/sentences.py FOLDER

The sentences are those of the documentation strings of scikit-learn, the label of each is the sub-package it is from,
one of :data:`TOPICS`.
FOLDER gets ``train.csv``, ``validation.csv`` and ``test.csv`` with the columns ``text`` and ``topic``, and for the
teacher and the student a folder that transformers loads: configuration, vocabulary, tokenizer, random weights.
"""

import argparse
import ast
import collections
import csv
import hashlib
import importlib.util
import re
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

TOPICS = (
    'cluster',
    'datasets',
    'decomposition',
    'ensemble',
    'linear_model',
    'metrics',
    'model_selection',
    'preprocessing',
)
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
WORD = re.compile(r'\w+|[^\w\s]')
NUM_WORDS = 4000
# Of 10 sentences, by a digest of their text: 7 to train, 1 to validate, 2 to test.
SPLITS = ('train',) * 7 + ('validation',) + ('test',) * 2
SIZES = {'teacher': (3, 96), 'student': (2, 64)}


def sentences() -> list[tuple[str, str]]:
    """Returns (sentence, topic) for each sentence that stands in the documentation of scikit-learn once."""
    root = Path(importlib.util.find_spec('sklearn').origin).parent
    found = [(text, topic) for topic in TOPICS for text in _sentences_of(root / topic)]
    times = collections.Counter(text for text, _ in found)
    return [(text, topic) for text, topic in found if times[text] == 1]


def split(rows: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Returns the sentences by split, the same ones whatever else is in the set."""
    parts = {name: [] for name in dict.fromkeys(SPLITS)}
    for text, topic in rows:
        parts[SPLITS[hashlib.sha256(text.encode()).digest()[0] % len(SPLITS)]].append((text, topic))
    return parts


def vocabulary(texts: list[str]) -> list[str]:
    """Returns special tokens, all characters, alone and inside a word, and the most frequent words."""
    words = collections.Counter(word for text in texts for word in WORD.findall(text.lower()))
    characters = sorted({character for word in words for character in word})
    frequent = [word for word, _ in words.most_common(NUM_WORDS)]
    return list(dict.fromkeys([*SPECIAL, *characters, *(f'##{character}' for character in characters), *frequent]))


def write_model(folder: Path, words: list[str], num_layers: int, width: int, seed: int) -> None:
    """Writes a BERT with random weights and its tokenizer, as ``from_pretrained`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.txt').write_text('\n'.join(words), encoding='utf-8')
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        max_position_embeddings=64,
        num_labels=len(TOPICS),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)


def prepare(folder: Path, seed: int = 0) -> dict[str, int]:
    """Writes the set and the models of a seed; returns the number of sentences of each split."""
    parts = split(sentences())
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        with (folder / f'{name}.csv').open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([('text', 'topic'), *((text, TOPICS.index(topic)) for text, topic in rows)])
    words = vocabulary([text for text, _ in parts['train']])
    for offset, (name, sizes) in enumerate(SIZES.items()):
        write_model(folder / name, words, *sizes, seed=2 * seed + offset)
    return {name: len(rows) for name, rows in parts.items()}


def _sentences_of(folder: Path) -> list[str]:
    found = []
    for file in sorted(folder.rglob('*.py')):
        if 'tests' in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for paragraph in (ast.get_docstring(node) or '').split('\n\n'):
                    found += re.split(r'(?<=[.:;])\s+', ' '.join(paragraph.split()))
    return [text for text in found if 6 <= len(text.split()) <= 40 and _is_prose(text)]


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() or character == ' ' for character in text)
    return text[0].isalpha() and letters > 0.85 * len(text)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    print(prepare(args.folder, args.seed))
