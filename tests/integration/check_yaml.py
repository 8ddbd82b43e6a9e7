"""Runs `trg-torchdistill check` on tiny YAMLs and reads its one JSON object."""

import json

from tiny import stage, whole_yaml, write

from trg_torchdistill.cli.main import main

QUICK = ('--input-size', '8', '--steps', '1')


def check(folder, capsys, train, *words, change=('', ''), **options):
    """Returns the exit code and the JSON object for the text of a `train:` block; `change` replaces in the YAML."""
    text = whole_yaml(folder, train, **options)
    assert change[0] in text
    text = text.replace(*change, 1) if change[0] else text
    capsys.readouterr()
    code = main(['check', write(folder, text), '--json', *QUICK, *words])
    return code, json.loads(capsys.readouterr().out)


def kinds(report):
    return [warning['kind'] for warning in report['warnings']]


def terms(report, position=0):
    return {term['name']: term for term in report['stages'][position]['terms']}


__all__ = ['QUICK', 'check', 'kinds', 'stage', 'terms']
