"""A sweep as a job array of Slurm: every task is the same `dopt sweep` on one results folder, which tasks share slab by slab."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dopt.files import reason
from dopt.launch.share import check_line
from dopt.paths import slug
from dopt.text import quoted
from dopt.types import InputError, MachineError

AHEAD = 60  # seconds before the time limit at which a task is told
LOGS = "logs"  # folder of the results for what tasks print


class Option(NamedTuple):
    """One of sbatch's options that a user may give."""

    flag: str  # sbatch's own
    pattern: str  # of what it may be: nothing that a shell or Slurm reads as more than one word
    rule: str  # the same in words
    help: str


WORD = "[A-Za-z0-9_][A-Za-z0-9_.@+-]*"
OPTIONS = {
    "partition": Option(
        "partition",
        f"{WORD}(,{WORD})*",
        "a name, or several with commas",
        "partition in which tasks run (default: Slurm's)",
    ),
    "account": Option("account", WORD, "a name", "account to charge (default: Slurm's)"),
    "time": Option(
        "time",
        "[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}",
        "minutes, or a time such as 1:30:00 or 2-12",
        "time limit of each task (default: the partition's)",
    ),
    "gpus": Option("gpus", f"({WORD}:)?[1-9][0-9]*", "a number, or KIND:NUMBER", "GPUs of each task (default: none)"),
    "cpus": Option(
        "cpus-per-task", "[1-9][0-9]*", "at least 1", "cores of each task; one process per core (default: 1)"
    ),
    "mem": Option(
        "mem", "[1-9][0-9]*[KMGT]?", "megabytes, or a size such as 16G", "memory of each task (default: Slurm's)"
    ),
}

# {{ and }} are the shell's own braces
SCRIPT = """\
#!/bin/bash
{options}

# Each task runs slabs that no other task holds, until none is missing. Finished slabs are kept, however a task ends.
slabs() {{ ls {slabs} 2>/dev/null | wc -l; }}
before=$(slabs)
told=
# before the time limit, Slurm signals only this shell
trap 'told=yes; kill -TERM $(jobs -p) 2>/dev/null' TERM
{command} &
wait $!
code=$?
if [ -n "$told" ]; then # the signal ended the wait
    wait $!
    code=$?
fi
# requeue, unless the task was cancelled or finished no slab in its time
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
if [ -n "$told" ] && [ $code = 143 ] && [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
    if [ "$(slabs)" -gt "$before" ]; then
        scontrol requeue "$task"
    else
        echo "dopt: no slab was finished in this task's time; submit it with a longer --time" >&2
    fi
fi
exit $code
"""


def check(given: Mapping[str, str]) -> None:
    """InputError where an option, by its name in `OPTIONS`, is not what Slurm takes."""
    for name, value in given.items():
        if not re.fullmatch(OPTIONS[name].pattern, value):
            raise InputError(f"{name}: must be {OPTIONS[name].rule}, got {quoted(value)}")


def script(
    name: str, command: Sequence[str], results: Path, tasks: int, given: Mapping[str, str], folder: Path | None = None
) -> str:
    """What `sbatch` is given.

    Args:
      name: the sweep's.
      command: what each task does, word by word.
      results: the folder of results, absolute; output goes into a folder of it, which must be there when a task starts.
      tasks: how many.
      given: options, by their names in `OPTIONS`, as they passed `check`.
      folder: where tasks run; by default where this process does.

    Raises:
      InputError: a path or a word of the command cannot stand in a script of Slurm.
    """
    for word in command:
        check_line("slurm", word)
    fixed = {
        "job-name": f"dopt-{slug(name)}",
        "array": f"0-{tasks - 1}",
        "requeue": None,
        "signal": f"B:TERM@{AHEAD}",
        "open-mode": "append",
        "chdir": _path(folder or Path.cwd()),
        # a % would begin one of Slurm's patterns
        "output": _path(str(results).replace("%", "%%") + f"/{LOGS}/slurm-%A_%a.log"),
    }
    options = fixed | {OPTIONS[name].flag: value for name, value in given.items()}
    lines = [f"#SBATCH --{flag}" + ("" if value is None else f"={value}") for flag, value in options.items()]
    return SCRIPT.format(
        options="\n".join(lines), slabs=shlex.quote(str(results / "slabs")), command=shlex.join(command)
    )


def _path(path: str | Path) -> str:
    """A path as it stands in a line that begins with #SBATCH."""
    text = str(path)
    check_line("slurm", text)
    if "\\" in text:
        raise InputError(f"slurm: a path must not contain backslashes, which Slurm removes, got {quoted(text)}")
    return shlex.quote(text)


def submit(text: str) -> str:
    """Hand a script to `sbatch`, and return the number of the job.

    Raises:
      MachineError: there is no sbatch, or it refuses.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=text, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise MachineError(
            f"slurm: cannot run sbatch ({reason(error)}); run this where jobs are submitted, or see the script with --print"
        ) from error
    if done.returncode:
        said = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.splitlines()]
        raise MachineError(f"slurm: sbatch refuses: {'; '.join(filter(None, said)) or f'exit code {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]  # a name of the cluster may follow
