"""Every command that the documents and the help texts show exists, with those options."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from m2f.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands
DOCUMENTS = ("README.md", "DESIGN.md", "CONTRIBUTING.md", "docs/gpu.md", "docs/jetson.md")


def shown():
    """Lines of code blocks, and of the examples in help texts."""
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                yield name, line.partition(" #")[0].strip().removeprefix("$ ")
    for name, command in COMMANDS.items():
        for line in command.help.splitlines():
            yield f"m2f {name} --help", line.strip()


LINES = [line for line in shown() if line[1].startswith(("m2f ", "make "))]


@pytest.mark.parametrize(("where", "line"), LINES)
def test_command(where, line):
    program, *words = shlex.split(line)
    if program == "make":
        rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(rules)
        return
    command = COMMANDS[words[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    options |= {name for parameter in command.params for name in parameter.secondary_opts}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= options | {"--help"}


def test_the_readme_shows_both_set_up_commands():
    assert {"make demo", "make test"} <= {
        line for where, line in LINES if where == DOCUMENTS[0]
    }


def test_the_readme_names_every_verb():
    rows = re.findall(r"^\| `m2f ([\w-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_has_examples(name):
    assert f"m2f {name}" in COMMANDS[name].help
