"""Help pages and completion: every flag is explained with its real default, every example is one that is understood, names are completed."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dopt import Run
from dopt.cli import launch, main, parser, show
from dopt.cli import run as run_command
from dopt.cli.command import Command, Parser
from dopt.cli.completion import SHELLS

COMMANDS = {
    **parser.COMMANDS,
    **{f"show {name}": command for name, command in show.SHOWS.items()},
    **{f"launch {name}": command for name, command in launch.LAUNCHES.items()},
}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """It, and those of all that stands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


ACTIONS = [(each.prog, action) for each in parsers(parser.parser()[0]) for action in each._actions]


def page(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_page_has_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture) -> None:
    said, command = page(capsys, *name.split()), COMMANDS[name]
    assert command.examples
    for example in command.examples:
        assert f"\n  {example}\n" in said
    codes = " ".join(said[said.rindex("exit codes: ") :].split())
    assert codes.startswith("exit codes: 0 done; 1 ")
    assert "; 2 the input is wrong; 130 or 143 interrupted" in codes


def test_every_example_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def instead(name: str, command: Command) -> Command:
        return command._replace(run=lambda args, dotted: ran.append(name) or 0)

    for name, command in parser.COMMANDS.items():
        monkeypatch.setitem(parser.COMMANDS, name, instead(name, command))
    examples = [line.partition(" > ")[0] for command in COMMANDS.values() for line in command.examples]
    for line in examples:
        program, *words = shlex.split(line)
        assert program == "dopt"
        assert main(words) == 0, line
        assert ran[-1] == words[0]
    assert len(ran) == len(examples)


def test_every_flag_is_explained_and_its_default_is_the_real_one() -> None:
    for prog, action in ACTIONS:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        assert action.help, (prog, action.dest)
        if action.option_strings and action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, [], "."):
            said = str(action.help) % {"default": action.default}
            assert f"(default: {action.default}" in said, (prog, action.dest, said)


def test_every_field_of_a_run_stands_in_one_group() -> None:
    grouped = [name for names in run_command.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(f.name for f in dataclasses.fields(Run) if f.name != "options")


def test_a_parser_of_ones_own_keeps_its_last_words_as_they_are() -> None:
    said = Parser(epilog="a\n  b").format_help()
    assert said.endswith("\n\na\n  b\n")


# -- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_holds_commands_flags_and_names(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("sweep", "--learning_rate" if shell != "tcsh" else "learning_rate", "gossip_sgd", "torus", "digits"):
        assert word in script


def test_bash_completes_words_flags_names_and_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "dopt.bash").write_text(capsys.readouterr().out)
    (tmp_path / "mine.yaml").touch()
    asked: dict[str, str] = {
        "sw": "sweep",
        "run --learn": "--learning_rate",
        "run --algorithm gos": "gossip_sgd",
        "run --topology tor": "torus",
        "show method choc": "choco_sgd",
        "show law pare": "pareto",
        "list topol": "topologies",
        "sweep mi": "mine.yaml",
    }
    lines = ["source ./dopt.bash"]
    for words in asked:
        lines += [f"COMP_WORDS=(dopt {words})", "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))", "COMPREPLY=()"]
        lines += ["_shtab_dopt", 'echo "${COMPREPLY[@]}"']
    done: Any = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert done.stdout.splitlines() == list(asked.values())
