"""`main`: does what the words of the command line say, and says in one line what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from dopt import cores, plugins
from dopt.cli.parser import obey
from dopt.cli.screen import complain
from dopt.files import reason
from dopt.types import InputError, MachineError
from dopt.watch import in_thread
from dopt_command import ends_at_once

SWEEPS = (["sweep"], ["figures"])  # commands whose slabs run on one thread


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit codes 0, 2 (input), 1 (the machine refuses, a figure's claim fails, doctor finds a fault), 130/143 (interrupted)."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with ends_at_once(given), cores.own() if arguments is None and given[:1] in SWEEPS else nullcontext():
        return in_thread(lambda: _code(given))


def _code(given: Sequence[str]) -> int:
    """The exit code of a command, whose errors are one line."""
    try:
        return obey(given)
    except InputError as error:
        complain(f"dopt: {error}")
        return 2
    except (MemoryError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # who read our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        complain(f"dopt: {_machine_says(error)}")
        return 1
    except Exception as error:
        return _plugin_says(error)


def _plugin_says(error: Exception) -> int:
    """The exit code where a user's own plug-in failed, in one line; whatever else fails is dopt's fault, and is shown whole."""
    line = plugins.line_of(error)
    if line is None:
        raise error
    complain(f"dopt: {line}")
    return 2


def _machine_says(error: MemoryError | OSError) -> str:
    """What the machine refuses, in one line."""
    if isinstance(error, MemoryError):
        return " ".join(f"memory: the machine has no more {error}; use fewer workers or a smaller model".split())
    if isinstance(error, MachineError):
        return str(error)
    name = "machine" if error.filename is None else repr(os.fsdecode(error.filename))
    return f"{name}: {reason(error)}"
