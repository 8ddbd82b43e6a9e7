"""The paper's equations, read independently: naive float64 loops, one token, one pair, one row at a time.

Imports torch and math only. Nothing here is fast, chunked, sparse or shared with the package: every sum of
arXiv:2306.12442 is a Python loop, and autograd runs through the loops, so gradients can be compared as well.
The names of the options are those of the project's design.
"""

import math

import torch

EPS_FLOAT32 = torch.finfo(torch.float32).eps
EPS_FLOAT64 = torch.finfo(torch.float64).eps


# ---------------------------------------------------------------------------------------------------------- tokens
def token_grid(feature, layout='bchw', patch_size=1, num_prefix_tokens=0, grid_size=None):
    """Token grid [B, D, h, w]; the token of cell (row, column) lists channel, patch row, patch column in that order."""
    feature = feature.double()
    if layout == 'bld':
        layout, grid_size = 'bnd', (1, feature.shape[1] - num_prefix_tokens)
    if layout == 'bd':
        return torch.stack([torch.stack([vector]) for vector in feature]).transpose(1, 2).unsqueeze(-1)
    if layout == 'bnd':
        num_tokens = feature.shape[1] - num_prefix_tokens
        height, width = grid_size if grid_size is not None else (math.isqrt(num_tokens), math.isqrt(num_tokens))

        def pixel(b, channel, row, column):
            return feature[b, num_prefix_tokens + row * width + column, channel]

        channels = feature.shape[2]
    elif layout == 'bhwc':
        height, width, channels = feature.shape[1:]

        def pixel(b, channel, row, column):
            return feature[b, row, column, channel]
    else:
        channels, height, width = feature.shape[1:]

        def pixel(b, channel, row, column):
            return feature[b, channel, row, column]

    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            torch.stack(
                                [
                                    pixel(b, channel, row * patch_size + i, column * patch_size + j)
                                    for column in range(width // patch_size)
                                ]
                            )
                            for row in range(height // patch_size)
                        ]
                    )
                    for channel in range(channels)
                    for i in range(patch_size)
                    for j in range(patch_size)
                ]
            )
            for b in range(feature.shape[0])
        ]
    )


def average_pool(grid, height, width):
    """Each output cell averages the input cells that its share of the map touches."""

    def window(index, size_in, size_out):
        return range(math.floor(index * size_in / size_out), math.ceil((index + 1) * size_in / size_out))

    rows = []
    for row in range(height):
        columns = []
        for column in range(width):
            cells = [
                grid[:, :, i, j]
                for i in window(row, grid.shape[2], height)
                for j in window(column, grid.shape[3], width)
            ]
            columns.append(sum(cells) / len(cells))
        rows.append(torch.stack(columns, dim=-1))
    return torch.stack(rows, dim=-2)


def common_grids(student, teacher):
    height, width = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return average_pool(student, height, width), average_pool(teacher, height, width)


def sequence(grid):
    """[B, D, h, w] to [B, N, D], the cells of a row one after the other, then the next row."""
    return torch.stack(
        [
            torch.stack([image[:, row, column] for row in range(grid.shape[2]) for column in range(grid.shape[3])])
            for image in grid
        ]
    )


def graph_tokens(tokens, cells=None):
    """[B, N, D] to [M, D], image after image; `cells` [B, n] names the drawn cells of each image."""
    if cells is None:
        return torch.stack([token for image in tokens for token in image])
    return torch.stack([image[int(cell)] for image, drawn in zip(tokens, cells, strict=True) for cell in drawn])


def graph_tokens_of(tokens, mask=None):
    """The same of the tokens that count, all of them; none are [0, D]."""
    if mask is None:
        return graph_tokens(tokens)
    cells = [[cell for cell in range(tokens.shape[1]) if image[cell]] for image in mask]
    return graph_tokens(tokens, cells) if any(cells) else tokens[:0, 0]


def unit_vector(vector, eps=EPS_FLOAT64):
    length_square = sum(x * x for x in vector)
    return vector if float(length_square.detach()) < eps**2 else vector / torch.sqrt(length_square)


def unit_vectors(tokens, eps=EPS_FLOAT64):
    return torch.stack([unit_vector(token, eps) for token in tokens.double()])


# ----------------------------------------------------------------------------------------------------------- graph
def square_distance(a, b):
    return ((a - b) * (a - b)).sum()


def neighbor_sets(tokens, num_neighbors):
    """For each token the set of its k nearest others (Euclidean)."""
    tokens = tokens.detach().double()
    sets = []
    for i in range(len(tokens)):
        others = [j for j in range(len(tokens)) if j != i]
        others.sort(key=lambda j, i=i: float(square_distance(tokens[i], tokens[j])))
        sets.append(set(others[:num_neighbors]))
    return sets


def adjacency_row(tokens, neighbors, i, sigma):
    """A_ij for all j: exp(-||T_i - T_j||^2 / (2 sigma)) for a neighbour, 0 for everyone else and for j = i."""
    zero = torch.zeros((), dtype=torch.float64)
    return [
        torch.exp(-square_distance(tokens[i], tokens[j]) / (2 * sigma)) if j in neighbors[i] else zero
        for j in range(len(tokens))
    ]


def log_softmax(logits):
    """Logarithm of the softmax of a list of scalars."""
    largest = max(float(logit.detach()) for logit in logits)
    log_total = largest + torch.log(sum(torch.exp(logit - largest) for logit in logits))
    return [logit - log_total for logit in logits]


def softmax(logits):
    return [torch.exp(log_weight) for log_weight in log_softmax(logits)]


def kullback_leibler(log_p, log_q):
    return sum(torch.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


def context_matrix(tokens, temperature=None):
    """One image: softmax over j of F_i . F_j / sqrt(D), or / temperature; tokens [N, D] to [N, N]."""
    tokens = tokens.double()
    scale = math.sqrt(tokens.shape[1]) if temperature is None else temperature
    return torch.stack(
        [
            torch.stack(softmax([(tokens[i] * tokens[j]).sum() / scale for j in range(len(tokens))]))
            for i in range(len(tokens))
        ]
    )


# ---------------------------------------------------------------------------------------------------------- losses
def edge_sets(student, teacher, num_neighbors, edges, edge_direction):
    """For each token the sets of its edges in the student's and in the teacher's graph."""
    num_tokens = len(student)
    k = num_tokens - 1 if num_neighbors is None else num_neighbors
    of_student, of_teacher = neighbor_sets(student, k), neighbor_sets(teacher, k)
    if edges == 'teacher':
        of_student = of_teacher
    if edges == 'union':
        of_student = of_teacher = [own | other for own, other in zip(of_student, of_teacher, strict=True)]
    if edge_direction == 'in':
        of_student, of_teacher = (
            [{j for j in range(num_tokens) if i in sets[j]} for i in range(num_tokens)]
            for sets in (of_student, of_teacher)
        )
    return of_student, of_teacher


def row(tokens, neighbors, support, i, sigma, row_distribution):
    """Logarithm of row i of a graph over the tokens of its support."""
    if row_distribution == 'proportional':
        return log_softmax([-square_distance(tokens[i], tokens[j]) / (2 * sigma) for j in support])
    affinities = adjacency_row(tokens, neighbors, i, sigma)
    return log_softmax([affinities[j] for j in support])


def local_preserving_loss(
    student,
    teacher,
    num_neighbors=8,
    sigma=0.5,
    edges='own',
    row_distribution='softmax_all',
    edge_direction='out',
    kl_direction='teacher_student',
    normalize_tokens=True,
    reduction='sum',
    eps=EPS_FLOAT64,
):
    student, teacher = student.double(), teacher.detach().double()
    if normalize_tokens:
        student, teacher = unit_vectors(student, eps), unit_vectors(teacher, eps)
    student_edges, teacher_edges = edge_sets(student, teacher, num_neighbors, edges, edge_direction)
    num_tokens = len(student)
    total = (student * 0).sum()
    for i in range(num_tokens):
        support = range(num_tokens)
        if row_distribution != 'softmax_all':
            support = sorted(student_edges[i] | teacher_edges[i])
        if len(support) == 0:
            continue
        p_student = row(student, student_edges, support, i, sigma, row_distribution)
        p_teacher = row(teacher, teacher_edges, support, i, sigma, row_distribution)
        if kl_direction == 'teacher_student':
            total = total + kullback_leibler(p_teacher, p_student)
        else:
            total = total + kullback_leibler(p_student, p_teacher)
    return total if reduction == 'sum' else total / num_tokens


def global_relationship_loss(
    student,
    teacher,
    temperature=0.1,
    target_temperature=None,
    queue=None,
    targets='self',
    reduction='mean',
    eps=EPS_FLOAT64,
):
    student, teacher = unit_vectors(student, eps), unit_vectors(teacher.detach(), eps)
    columns = [*teacher, *(unit_vectors(queue, eps) if queue is not None else [])]
    target_temperature = temperature if target_temperature is None else target_temperature
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(student)):
        log_p = log_softmax([(student[i] * column).sum() / temperature for column in columns])
        if targets == 'self':
            total = total - log_p[i]
        else:
            log_q = log_softmax([(teacher[i] * column).sum() / target_temperature for column in columns])
            total = total + kullback_leibler(log_q, log_p)
    return total if reduction == 'sum' else total / len(student)


def contextual_loss(
    student, teacher, mask=None, normalize_tokens=False, temperature=0.1, reduction='mean', eps=EPS_FLOAT64
):
    student, teacher = student.double(), teacher.detach().double()
    total, num_pairs = torch.zeros((), dtype=torch.float64), 0
    for image in range(len(student)):
        counted = [i for i in range(student.shape[1]) if mask is None or mask[image, i]]
        if not counted:
            continue
        student_image, teacher_image = student[image, counted], teacher[image, counted]
        if normalize_tokens:
            matrix_student = context_matrix(unit_vectors(student_image, eps), temperature)
            matrix_teacher = context_matrix(unit_vectors(teacher_image, eps), temperature)
        else:
            matrix_student, matrix_teacher = context_matrix(student_image), context_matrix(teacher_image)
        for i in range(len(counted)):
            for j in range(len(counted)):
                total, num_pairs = total + (matrix_student[i, j] - matrix_teacher[i, j]) ** 2, num_pairs + 1
    return total / len(student) if reduction == 'batchmean' else total / num_pairs


# ------------------------------------------------------------------------------------------------------- schedules
def value_at(start, end, schedule, epoch, num_epochs, until=1.0):
    if num_epochs == 1:
        return start
    progress = min(max(epoch, 0) / (until * (num_epochs - 1)), 1.0)
    if schedule == 'linear':
        return start + (end - start) * progress
    if schedule == 'exponential':
        return math.exp(math.log(start) + (math.log(end) - math.log(start)) * progress)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
