import pytest

from trg_torchdistill.cli.demo.command import CONFIGS
from trg_torchdistill.cli.demo.report import RunResult, draw_report, report_lines

GROUPS = {'many': 95.0, 'medium': 80.0, 'few': 40.0}


EPOCHS = [0.0, 10.0, 20.0, 30.0]


def lines_of(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def history(images_per_second, num_images=50):
    return [
        {
            'epoch': number,
            'val_top1': 10.0 * number,
            'best_val_top1': 10.0 * number,
            'temperature': 0.5,
            'terms': {'kd': 2.0 / (number + 1), 'trg': 5.0, 'trg.local': 1.0 + number},
            'seconds': {'train': num_images / speed, 'val': 1.0},
            'images_per_second': speed,
        }
        for number, speed in enumerate(images_per_second)
    ]


def results(**top1):
    return {
        name: RunResult(
            history([1.0, 100.0, 200.0, 300.0]),
            {'top1': top1.get(name, 90.0), 'top5': 99.0, 'n': 600, 'groups': GROUPS},
            batch_size=25,
        )
        for name in CONFIGS
    }


def test_the_numbers_are_kept_as_they_were_measured():
    record = results(kd=93.5)['kd'].as_dict()
    assert record['test']['top1'] == 93.5
    assert (record['train_images'], record['epochs'], record['best_val_top1']) == (50, 4, 30.0)
    assert record['ms_per_step'] == 1000 * 25 / 200  # the median without the first epoch
    assert RunResult(history([100.0]), {}, 25).milliseconds_a_step == 250


@pytest.mark.parametrize(
    ('trg', 'tail', 'expected'),
    [
        (92.5, 88.0, 'KD + TRG minus KD: top-1 +2.50, long-tailed -2.00 points'),
        (89.0, 90.0, 'KD + TRG minus KD: top-1 -1.00, long-tailed +0.00 points'),
    ],
)
def test_the_report_says_what_was_measured_also_when_trg_does_not_win(trg, tail, expected):
    text = '\n'.join(report_lines(results(trg=trg, longtailed_trg=tail), seed=3))
    assert expected in text
    assert 'step time +0 %' in text
    assert 'seed 3' in text
    assert 'One seed is no proof' in text


def test_the_report_fits_a_terminal_of_80_columns():
    lines = report_lines(results(trg=100.0, longtailed_kd=0.0, longtailed_trg=100.0), seed=12345)
    assert max(map(len, lines)) <= 80
    table = [line for line in lines[:-3] if line.startswith(('teacher', 'student', 'KD'))]
    assert [line.split('  ')[0] for line in table] == [
        'teacher ResNet-20',
        'student alone',
        'KD',
        'KD + TRG',
        'KD',
        'KD + TRG',
    ]


def test_the_picture_has_a_panel_for_each_question():
    figure = draw_report(results())
    balanced, long_tailed, terms, temperature = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        'balanced, 50 training images',
        'long-tailed, 50 training images',
        'KD + TRG: terms of the loss',
        'KD + TRG: dynamic temperature',
    ]
    assert lines_of(balanced) == {'teacher': [30.0, 30.0], **dict.fromkeys(('student alone', 'KD', 'KD + TRG'), EPOCHS)}
    assert lines_of(long_tailed) == {'teacher': [30.0, 30.0], 'KD': EPOCHS, 'KD + TRG': EPOCHS}
    assert [line.get_color() for line in balanced.lines[2:]] == [line.get_color() for line in long_tailed.lines[1:]]
    assert [text.get_text() for text in long_tailed.get_legend().get_texts()] == ['teacher', 'KD', 'KD + TRG']
    assert lines_of(terms) == {'kd (from 2)': [1, 0.5, 1 / 3, 0.25], 'trg local (from 1)': [1, 2, 3, 4]}
    assert lines_of(temperature) == {'temperature': [0.5] * 4}
    assert temperature.get_legend() is None
