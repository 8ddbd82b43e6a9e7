"""What the token graph and the context maps show, before anything is drawn."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from trg_torchdistill.cli.plot.models import Model, hooked_features, penultimate_features
from trg_torchdistill.cli.plot.pictures import draw_context, draw_graph
from trg_torchdistill.cli.plot.tokens import (
    choose_cell,
    graph_to_draw,
    neighbors_in_other_images,
    shares_of_edges,
    tokens_of,
)
from trg_torchdistill.context import context_similarity
from trg_torchdistill.errors import TRGError
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.losses import TokenContextualLoss, TRGLoss

ENDS = {
    'student_module_path': 'layer',
    'student_module_io': 'output',
    'teacher_module_path': 'layer',
    'teacher_module_io': 'output',
}
GRID = (2, 3)


class Layer(nn.Module):
    """Brings an image [B, 3, h, w] into a layout, with class tokens of zeros in front of a sequence."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def forward(self, images):
        if self.layout == 'bhwc':
            return images.permute(0, 2, 3, 1)
        if self.layout == 'bnd':
            sequence = images.flatten(2).transpose(1, 2)
            return torch.cat([torch.zeros_like(sequence[:, :1]), sequence], 1)
        return images


class Net(nn.Module):
    def __init__(self, layout='bchw'):
        super().__init__()
        self.layer = Layer(layout)
        self.fc = nn.Linear(3, 5)

    def forward(self, images):
        self.layer(images)
        return self.fc(images.mean((2, 3)))


def model(layout='bchw', label='student after'):
    return Model(label, 'net', Net(layout).eval())


def by_hand(tokens, image, cell, count):
    """(distance, (image, cell)) of the nearest tokens of other images, from all distances."""
    distances = torch.cdist(tokens[image, cell][None, None], tokens[None].flatten(1, 2))[0, 0]
    ends = [(value, divmod(index, 6)) for index, value in enumerate(distances.tolist()) if index // 6 != image]
    return sorted(ends)[:count]


@pytest.mark.parametrize(
    ('image', 'normalize_tokens', 'num_neighbors', 'found_in_all'),
    [(0, True, 7, 7), (2, False, 7, 7), (3, True, 7, 7), (3, False, 99, 18)],
)
def test_neighbors_are_the_nearest_tokens_of_other_images(image, normalize_tokens, num_neighbors, found_in_all):
    tokens = torch.randn(4, 6, 5)
    graph = TRGLoss(**ENDS, num_neighbors=num_neighbors, normalize_tokens=normalize_tokens, sigma=2.0).graph
    found = neighbors_in_other_images(tokens, tokens, image, 5, graph)
    used = functional.normalize(tokens, dim=2) if normalize_tokens else tokens
    expected = by_hand(used, image, 5, found_in_all)
    assert [*found] == [place for _, place in expected]
    affinities = [torch.tensor(-(distance**2) / 4).exp() for distance, _ in expected]
    assert torch.allclose(torch.tensor([*found.values()]), torch.stack(affinities))


@pytest.mark.parametrize('edges', ['own', 'teacher', 'union'])
def test_the_edges_of_a_model_are_those_that_the_loss_uses(edges):
    tokens, teacher = torch.randn(4, 6, 5), torch.randn(4, 6, 5)
    of = {'student': by_hand(tokens, 1, 2, 3), 'teacher': by_hand(teacher, 1, 2, 3)}
    own, others = ({place for _, place in nearest} for nearest in of.values())
    graph = LocalTerm(3, normalize_tokens=False, edges=edges)
    found = neighbors_in_other_images(tokens, teacher, 1, 2, graph)
    assert set(found) == {'own': own, 'teacher': others, 'union': own | others}[edges]
    other, cell = next(iter(found))
    square = float((tokens[1, 2] - tokens[other, cell]).square().sum())
    assert found[other, cell] == pytest.approx(math.exp(-square), rel=1e-5)


def test_of_the_complete_graph_each_models_nearest_tokens_are_drawn():
    drawn = graph_to_draw(LocalTerm(None, 2.0, 'union', 'proportional', 'in', normalize_tokens=False))
    assert drawn == LocalTerm(8, 2.0, normalize_tokens=False)
    assert graph_to_draw(LocalTerm(None, edges='teacher'), 3) == LocalTerm(3)
    assert graph_to_draw(LocalTerm(5, edges='teacher'), 3) == LocalTerm(3, edges='teacher')


def test_the_share_of_the_edges_of_all_tokens():
    teacher, student = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    shares = shares_of_edges({'teacher': teacher, 'student': student}, LocalTerm(2, normalize_tokens=False))
    ends = [(image, cell) for image in range(3) for cell in range(6)]
    edges = [{(end, place) for end in ends for _, place in by_hand(tokens, *end, 2)} for tokens in (teacher, student)]
    assert shares == {'teacher': 1, 'student': len(edges[0] & edges[1]) / 36}


def test_padding_is_no_neighbour_and_has_no_edges():
    tokens, teacher = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, False], [False] * 6])
    graph = LocalTerm(9, normalize_tokens=False)
    found = neighbors_in_other_images(tokens, tokens, 0, 5, graph, mask)
    assert [*found] == [place for _, place in by_hand(tokens, 0, 5, 12) if mask[place]]
    padded = [torch.where(mask[:, :, None], each, torch.nan) for each in (tokens, teacher)]
    values = dict(zip(('teacher', 'student'), padded, strict=True))
    assert shares_of_edges(values, LocalTerm(2, normalize_tokens=False), mask)['teacher'] == 1


def test_the_mask_of_a_loss_is_that_of_its_pictures():
    class Masked(Layer):
        def forward(self, images):
            self.mask(images[:, 1])
            return images

    loss = TokenContextualLoss(**ENDS, token_mask={'path': 'layer.mask'})
    student, images = model(), torch.randn(2, 3, *GRID)
    student.module.layer = Masked('bchw')
    student.module.layer.mask = nn.ReLU()
    tokens, grid, mask = tokens_of(loss, [model(label='teacher'), student], images)
    assert torch.equal(mask, images[:, 1].flatten(1) > 0)
    padding, counted = (~mask[0]).nonzero()[0].item(), mask[0].nonzero()[0].item()
    assert choose_cell(grid, divmod(counted, 3), '`layer`', mask[0]) == divmod(counted, 3)
    with pytest.raises(TRGError, match='expected `--cell` to be a token of `layer` that counts, got'):
        choose_cell(grid, divmod(padding, 3), '`layer`', mask[0])
    figure = draw_context(
        {label: each[:1] for label, each in tokens.items()}, {'teacher': 'T', 'student after': 'S'}, images[0, 0],
        divmod(counted, 3), grid, loss.maps, mask[0],
    )  # fmt: skip
    drawn = torch.as_tensor(figure.axes[1].images[0].get_array()).flatten()
    assert torch.equal(drawn > 0, mask[0])


@pytest.mark.parametrize('normalize_tokens', [True, False])
def test_context_maps_are_those_of_the_loss(normalize_tokens):
    tokens, loss = torch.randn(1, 6, 5), TokenContextualLoss(**ENDS, normalize_tokens=normalize_tokens, temperature=0.3)
    if normalize_tokens:
        expected = context_similarity(functional.normalize(tokens, dim=2), 0.3)
    else:
        expected = context_similarity(tokens)
    assert torch.allclose(loss.maps.of(tokens), expected)
    assert loss.maps.difference(tokens, tokens) == 0
    features = {'layer': {'output': tokens.transpose(1, 2).reshape(1, 5, 2, 3)}}
    other = {'layer': {'output': torch.randn(1, 5, 2, 3)}}
    flat = other['layer']['output'].flatten(2).transpose(1, 2)
    assert loss.maps.difference(tokens, flat).item() == pytest.approx(loss(features, other).item())


@pytest.mark.parametrize('layout', ['bchw', 'bhwc', 'bnd'])
def test_tokens_are_cut_by_the_tokenizer_of_the_loss(layout):
    images = torch.randn(2, 3, *GRID)
    options = {'bnd': {'num_prefix_tokens': 1, 'grid_size': [2, 3]}}.get(layout, {'layout': layout})
    loss = TRGLoss(**ENDS, student_tokens=options)
    tokens, grid, _ = tokens_of(loss, [model(label='teacher'), model(layout)], images)
    assert (list(tokens), grid) == (['teacher', 'student after'], GRID)
    assert all(torch.equal(values, images.flatten(2).transpose(1, 2)) for values in tokens.values())


def test_without_a_teacher_a_student_stands_for_it():
    tokens, _, _ = tokens_of(TRGLoss(**ENDS), [model()], torch.randn(2, 3, *GRID))
    assert list(tokens) == ['student after']


def test_the_smaller_grid_counts():
    class Pooled(Layer):
        def forward(self, images):
            return functional.adaptive_avg_pool2d(images, 2)

    student, images = model(), torch.randn(2, 3, 4, 4)
    student.module.layer = Pooled('bchw')
    tokens, grid, _ = tokens_of(TRGLoss(**ENDS), [model(label='teacher'), student], images)
    assert grid == (2, 2)
    assert torch.allclose(tokens['teacher'], tokens['student after'])


def test_hooks_see_the_plain_student_and_are_taken_away():
    student, images = model(), torch.randn(2, 3, *GRID)
    found = hooked_features(student, ['student_model.layer', '.'], images)
    assert torch.equal(found['student_model.layer']['output'], images)
    assert torch.equal(found['.']['input'][0], images)
    assert not student.module.layer._forward_hooks
    with pytest.raises(TRGError, match=r"module path 'layr' .* got none; did you mean `layer`\?; name a layer with"):
        hooked_features(student, ['layr'], images)


def test_penultimate_features_enter_the_last_layer():
    images, cpu = torch.randn(60, 3, *GRID), torch.device('cpu')
    assert torch.allclose(penultimate_features(model(), images, cpu), images.mean((2, 3)))
    convolutional = Model('student', 'conv', nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 1), nn.Flatten(2)))
    assert torch.allclose(penultimate_features(convolutional, images, cpu), images.relu().mean((2, 3)))


def test_the_chosen_cell():
    assert choose_cell((4, 6), None, '`layer`') == (2, 3)
    assert choose_cell((4, 6), [3, 5], '`layer`') == (3, 5)
    for outside in ([4, 0], [0, 6], [-1, 0]):
        with pytest.raises(TRGError, match=r'row from 0 to 3 and a column from 0 to 5 of the 4 x 6 tokens'):
            choose_cell((4, 6), outside, '`layer`')


def test_an_edge_is_drawn_to_the_middle_of_its_cell():
    from matplotlib.patches import ConnectionPatch, Rectangle

    graphs = {'teacher': {(1, 2): 0.9, (2, 3): 0.5}, 'student': {(2, 3): 0.7, (1, 4): 0.2}}
    captions, titles, pixels = {'teacher': 'T', 'student': 'S'}, ['cat', 'cat', 'dog'], torch.zeros(3, 4, 6, 3)
    figure = draw_graph(graphs, 'own', {'student': 0.25}, captions, titles, pixels, (0, 1, 1), GRID)
    edges = [artist for artist in figure.artists if isinstance(artist, ConnectionPatch)]
    assert [edge.xy2 for edge in edges] == [(4.5, 0.5), (0.5, 2.5), (0.5, 2.5), (2.5, 2.5)]
    assert {edge.xy1 for edge in edges} == {(2.5, 2.5)}
    assert [edge.axesB for edge in edges] == [figure.axes[position] for position in (1, 2, 5, 4)]
    assert edges[0].get_edgecolor() == edges[2].get_edgecolor() != edges[3].get_edgecolor()
    assert edges[2].get_linestyle() != edges[3].get_linestyle()
    corners = [patch.get_xy() for patch in figure.axes[4].patches if isinstance(patch, Rectangle)]
    assert corners == [(1.5, 1.5)]
    assert figure.axes[3].get_ylabel() == 'S\n1 of 2 as the teacher\n(25% over all tokens)'
    assert [axes.get_title() for axes in figure.axes[:3]] == titles
    figure = draw_graph(graphs, 'union', {'student': 0.25}, captions, titles, pixels, (0, 1, 1), GRID)
    assert figure.axes[3].get_ylabel() == "S\nof the teacher's,\n25% are its own\n(over all tokens)"
