"""The notebooks of ``examples`` run from top to bottom, and are committed without what a run leaves in them."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / 'examples'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))
SECONDS_A_CELL = 600


def images_in(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    return sum('image/png' in output.get('data', {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'num_pictures'), [('plain_torch.ipynb', 2), ('torchdistill_box.ipynb', 0)], ids=['plain', 'box']
)
def test_a_notebook_runs(name, num_pictures):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    resources = {'metadata': {'path': str(FOLDER.parent)}}
    NotebookClient(notebook, timeout=SECONDS_A_CELL, kernel_name='python3', resources=resources).execute()
    assert images_in(notebook) == num_pictures


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell['id'] for cell in code if cell.outputs or cell.execution_count is not None] == []


def test_every_notebook_is_run():
    assert [path.name for path in NOTEBOOKS] == ['plain_torch.ipynb', 'torchdistill_box.ipynb']
