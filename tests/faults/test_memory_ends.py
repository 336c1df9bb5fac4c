"""Where memory ends, a run is refused before it runs, or ends with one line and exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

import dopt
from dopt import InputError
from dopt.cli import main
from dopt.devices import memory
from dopt.engine import Compiled
from dopt.sweeps import plan
from dopt.types import MachineError

from .processes import end, start
from .test_signals import SHORT

RUN = dopt.Run.from_dict({**SHORT, "steps": 10})


def test_a_single_run_that_cannot_fit_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    monkeypatch.setattr(Compiled, "start", lambda *a: pytest.fail("ran"))
    with pytest.raises(InputError, match=r"memory: one run of gossip_sgd needs .* GiB, the device has .* GiB"):
        dopt.run(RUN)


def test_a_device_without_room_is_one_line_and_finished_slabs_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is what JAX raises on an accelerator."""
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    whole, calls = Compiled.start, []

    def full(self: Compiled, inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore"
            )
        return whole(self, inputs)

    monkeypatch.setattr(Compiled, "start", full)
    content = {"parameters": {name: {"value": v} for name, v in {**SHORT, "steps": 10}.items()}}
    content["parameters"]["seed"] = {"values": [0, 1, 2]}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    arguments = ["sweep", str(file), "--results", str(tmp_path / "results"), "--wandb", "off"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dopt: memory: the device has no room left (RESOURCE_EXHAUSTED")
    assert err.count("\n") == 1
    assert dopt.load(tmp_path / "results").missing == 2
    assert dopt.sweep(file, results=tmp_path / "results").missing == 0


def test_other_errors_of_devices_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Compiled, inputs: Any) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(Compiled, "start", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL") as caught:
        dopt.run(RUN)
    assert not isinstance(caught.value, MachineError)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [16, 64, 400])
def test_a_process_that_may_have_no_more_memory_ends_with_one_line(megabytes: int, tmp_path: Path) -> None:
    """The limit comes after the checks before compilation, as where the process takes the memory meanwhile."""
    limit = f"""
import resource
def limited(self, *rest, f=Compiled.start):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20, resource.RLIM_INFINITY))
    return f(self, *rest)
Compiled.start = limited
"""
    flags = [f"--{name}={value}" for name, value in {**SHORT, "steps": 10, "problem.dim": 3_000_000}.items()]
    code, out, err = end(start(tmp_path / "marks", ["run", *flags, "--wandb=off"], code=limit))
    assert (code, out) == (1, ""), err
    assert err.startswith(
        f"dopt: memory: the process may take {megabytes}.0 MiB more (its limit on address space, ulimit -v)"
    )
    assert err.count("\n") == 1
