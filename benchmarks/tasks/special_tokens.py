"""Whose neighbours the tokens [CLS] and [SEP] are, in the last layer of a trained classifier of texts.

    python benchmarks/tasks/special_tokens.py FOLDER

FOLDER is that of ``benchmarks/tasks/text.py``, after it trained the teacher. The tokens are those of 64 texts
of the test set, normalised, with their 8 nearest neighbours in the batch.
"""

import argparse
import csv
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from trg_torchdistill.graph import nearest_neighbors
from trg_torchdistill.tokens import normalize

NUM_TEXTS, NUM_NEIGHBORS = 64, 8


def main() -> None:
    """Prints a table: kind of token, kinds of its neighbours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder / 'teacher'
    model = AutoModel.from_pretrained(folder / 'trained_teacher').eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / 'teacher')
    with (folder / 'test.csv').open(newline='', encoding='utf-8') as file:
        texts = [row['text'] for row in csv.DictReader(file)][:NUM_TEXTS]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors='pt')
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    counts = batch['attention_mask'].bool()
    kinds = {'[CLS]': tokenizer.cls_token_id, '[SEP]': tokenizer.sep_token_id}
    ids = batch['input_ids'][counts]
    neighbors = nearest_neighbors(normalize(states[counts]), NUM_NEIGHBORS)
    is_kind = {name: ids == identifier for name, identifier in kinds.items()}
    is_kind['words'] = ~(is_kind['[CLS]'] | is_kind['[SEP]'])
    print('| neighbours of | number |', ' | '.join(is_kind), '|')
    print('|---|---|' + '---|' * len(is_kind))
    for name, rows in is_kind.items():
        shares = [f'{is_other[neighbors[rows]].float().mean():.1%}' for is_other in is_kind.values()]
        print(f'| {name} | {int(rows.sum())} |', ' | '.join(shares), '|')


if __name__ == '__main__':
    main()
