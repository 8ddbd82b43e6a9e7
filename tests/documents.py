"""The pages of the documentation, their blocks, and the commands that they name."""

import re
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('*.md', 'docs/*.md', 'configs/**/*.md')
PAGES = {path.relative_to(ROOT).as_posix(): path for folder in FOLDERS for path in sorted(ROOT.glob(folder))}

# Bash itself expands loops, braces and variables of a block, and hands over each command instead of running it.
RECORD = """
PATH=/nowhere
command_not_found_handle() { for word in "$@"; do printf '%q ' "$word"; done; printf '\\n'; }
for name in cd .venv/bin/python; do eval "$name() { command_not_found_handle $name \\"\\$@\\"; }"; done
"""
INLINE = re.compile(r'`((?:python|pytest|make|bash|trg-torchdistill|torchrun) [^`\n]+(?:\n[^`\n]+)?)`')


def text_of(page):
    return PAGES[page].read_text(encoding='utf-8')


def blocks(page, language):
    """The contents of the blocks of a language, without the indentation of a list around one."""
    found = re.findall(rf'^( *)```{language}\n(.*?)^ *```$', text_of(page), re.DOTALL | re.MULTILINE)
    return [re.sub(rf'^{indent}', '', body, flags=re.MULTILINE) for indent, body in found]


def commands(page):
    """The words of each command of a page: of its shell blocks, of what is typed in a session, and inline."""
    return recorded('\n'.join(shell_blocks(page))) + inline_commands(page)


def shell_blocks(page):
    typed = ('\n'.join(re.findall(r'^\$ (.*)$', block, re.MULTILINE)) for block in blocks(page, 'console'))
    return [*blocks(page, 'bash'), *typed]


def recorded(text):
    """What bash would run; a variable of a block holds for those after it."""
    done = subprocess.run(['/bin/bash', '-c', RECORD + text], capture_output=True, text=True, check=True, cwd='/')
    return [shlex.split(line) for line in done.stdout.splitlines()]


def inline_commands(page):
    prose = re.sub(r'^ *```.*?^ *```$', '', text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(found) for found in INLINE.findall(prose)]
