"""SIGINT and SIGTERM in every phase end the command at once, with one line; what was finished stays whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import dopt

from .processes import end, environment, start, wait_for

SOON = 2.0  # seconds
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
KEPT = "dopt: interrupted; finished work is kept, and the same command continues from there\n"
SHORT = {"algorithm": "gossip_sgd", "workers": 4, "problem": "quadratic", "problem.dim": 4, "learning_rate": 0.1}
# what makes a phase last, so that the signal comes in its middle; in C++ where the phase is in C++
SLOW: dict[str, tuple[Mapping[str, Any], str]] = {
    "imports": ({}, ""),
    "graph": ({}, "import time\ntopology.make = marked('graph', lambda *a, **k: time.sleep(100))\n"),
    # XLA takes minutes for such a program
    "compile": (
        {},
        """
import jax.numpy as jnp
def slow(*args, **options):
    (MARKS / "compile").touch()
    def long(x):
        for i in range(3000):
            x = jnp.sin(x @ x) + i
        return x
    lowered = jax.jit(long).lower(jnp.ones((50, 50)))
    (MARKS / "xla").touch()
    return lowered.compile()
executors.place = slow
""",
    ),
    "device": ({"steps": 3_000_000, "record_every": 3_000_000, "workers": 16, "problem.dim": 256}, ""),
    "write": (
        {},
        "import time\nfrom dopt.sweeps import columns\ncolumns.write = lambda *a: (a[1].write_text('half'), time.sleep(100))\n",
    ),
}
MARK = {"compile": "xla"}


def sweep_file(folder: Path, **changes: Any) -> Path:
    file = folder / "small.yaml"
    parameters = {name: {"value": value} for name, value in {**SHORT, "steps": 10, **changes}.items()}
    file.write_text(yaml.safe_dump({"name": "small", "parameters": parameters}))
    return file


QUICK = {("compile", signal.SIGTERM), ("graph", signal.SIGINT)}  # of all, what every `make test` tries
EACH = [
    pytest.param(phase, number, id=f"{phase}-{number.name}", marks=[] if (phase, number) in QUICK else pytest.mark.slow)
    for phase in SLOW
    for number in CODES
]


@pytest.mark.parametrize(("phase", "number"), EACH)
def test_a_signal_ends_the_command_at_once(phase: str, number: signal.Signals, tmp_path: Path) -> None:
    changes, code = SLOW[phase]
    results = tmp_path / "results"
    arguments = ["sweep", str(sweep_file(tmp_path, **changes)), "--results", str(results), "--wandb", "off"]
    process = start(tmp_path / "marks", arguments, code=code)
    wait_for(process, tmp_path / "marks" / MARK.get(phase, phase))
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    assert end(process) == (CODES[number], "", KEPT)
    assert time.monotonic() - begin < SOON
    assert not list((results / "slabs").glob("[!.]*"))  # nothing under a final name
    if phase in ("device", "write"):
        assert dopt.load(results).missing == 1


@pytest.mark.slow
def test_a_sweep_that_was_ended_while_it_wrote_goes_on_and_leaves_nothing_unfinished(tmp_path: Path) -> None:
    results, file = tmp_path / "results", sweep_file(tmp_path)
    arguments = ["sweep", str(file), "--results", str(results), "--wandb", "off"]
    process = start(tmp_path / "marks", arguments, code=SLOW["write"][1])
    wait_for(process, tmp_path / "marks" / "write")
    time.sleep(0.3)
    process.kill()
    end(process)
    assert list((results / "slabs").glob(".tmp-*"))
    assert dopt.sweep(file, results=results).missing == 0
    assert not list(results.rglob(".tmp-*"))


FIGURE = f'''"""A figure."""
PARAMETERS = {{name: {{"value": value}} for name, value in {SHORT!r}.items()}}
PARAMETERS |= {{"steps": {{"value": 30_000_000}}, "record_every": {{"value": 3_000_000}}}}
SWEEPS = {{name: {{"parameters": PARAMETERS | {{"seed": {{"value": seed}}}}}} for seed, name in enumerate("abc")}}

def table(results): ...
def draw(results): ...
def claims(results): return []
'''


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_helpers_end_with_whom_they_help(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "paper_figs"
    folder.mkdir()
    (folder / "long.py").write_text(FIGURE)
    process = start(tmp_path / "marks", ["figures", "--jobs=2", "--folder=paper_figs"], cwd=tmp_path)
    wait_for(process, tmp_path / "results" / "long" / "c" / "plans" / "0001.json")  # the helper begins at the end
    wait_for(process, tmp_path / "results" / "long" / "a" / "plans" / "0001.json")
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert helpers
    process.send_signal(number)
    code, out, err = end(process)
    expected = (143, KEPT) if number == signal.SIGTERM else (-signal.SIGKILL, "")
    assert ((code, err), out) == (expected, "")
    assert psutil.wait_procs(helpers, timeout=SOON)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["compile", "device"])
def test_in_python_an_interrupt_arrives_in_compilation_and_on_devices_and_the_session_stays_usable(phase: str) -> None:
    code = f"""
import os, signal, sys, threading, time
import jax, jax.numpy as jnp
import dopt

fields = {SHORT!r}
run = dopt.Run.from_dict(fields | {{"steps": 10}})
dopt.run(run)
def slow(params, batch):
    x = jnp.outer(jnp.ones(50), jnp.ones(50)) * params.sum()
    for i in range(3000):
        x = jnp.sin(x @ x) + i
    return x.sum()
own = None
if {phase!r} == "compile":
    import numpy as np
    own = dopt.Problem(lambda key: jnp.ones(30), slow, np.zeros((4, 2, 1)))
    run = dopt.Run(algorithm="gossip_sgd", workers=4, learning_rate=0.1, steps=10)
else:
    run = dopt.Run.from_dict(fields | {{"steps": 300_000_000, "record_every": 300_000_000, "problem.dim": 256}})
came = []
def send():
    time.sleep(4)  # tracing is Python and would be interrupted anyway; then comes XLA
    came.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    dopt.run(run, problem=own)
except KeyboardInterrupt:
    print(time.monotonic() - came[0] < {SOON}, flush=True)
print(dopt.run(dopt.Run.from_dict(fields | {{"steps": 20}})).history["step"][-1], flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment())
    assert (done.stdout.split(), done.stderr) == (["True", "20"], "")
    assert done.returncode in (0, 130)  # 130: the compiler was still at work when the session ended
