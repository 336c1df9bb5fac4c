"""The command: what it prints, what it writes, how it ends; and one line for whatever a user can mend."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import yaml

import dopt
from dopt import InputError, Run
from dopt.cli import listing, main
from dopt.data import files
from dopt.devices import executors
from dopt.figures import Claim, claims, fill, gallery
from dopt.figures import files as figures
from dopt.sweeps.show import Show
from dopt.version import described

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "benchmarks" / "connectivity_delay.yaml"
BASE: dict[str, Any] = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "learning_rate": 0.1,
    "problem": "quadratic",
    "problem.dim": 4,
    "steps": 20,
}
DIGITS = {"problem": "softmax", "problem.dim": None, "data": "digits"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, no W&B login, and no data of the user's."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("DOPT_DATA_DIR", raising=False)


@pytest.fixture
def no_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("compiled"))


def written(content: Mapping[str, Any] | str, name: str = "small") -> str:
    """A sweep file outside of the working directory."""
    file = Path.cwd().parent / f"{name}.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(file)


def grid(**changes: Any) -> dict[str, Any]:
    flat = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    return {"parameters": {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in flat.items()}}


def flags(**changes: Any) -> list[str]:
    return [f"--{name}={value}" for name, value in {**BASE, **changes}.items() if value is not None]


def fails(capsys: pytest.CaptureFixture, arguments: list[str], *said: str, code: int = 2) -> None:
    """Exit code 2 (1 where the machine refuses), one line on stderr with all that is `said`, nothing else said or written."""
    before = sorted(Path.cwd().parent.rglob("*"))
    capsys.readouterr()
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dopt: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    for part in said:
        assert part in err
    assert sorted(Path.cwd().parent.rglob("*")) == before


def process(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    """`dopt` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from dopt.cli import main; sys.exit(main())", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


# -- bad input --------------------------------------------------------------------------------------------------------


def matrix(content: np.ndarray) -> str:
    """A file with a mixing matrix."""
    path = Path.cwd().parent / "w.npy"
    np.save(path, content)
    return str(path)


def two_parts() -> str:
    path = Path.cwd().parent / "parts.edges"
    nx.write_edgelist(nx.Graph([(0, 1), (2, 3)]), path, data=False)
    return str(path)


def with_nan() -> str:
    w = np.full((4, 4), 0.25)
    w[1, 2] = np.nan
    return matrix(w)


def rows_only() -> str:
    """Rows sum to one, columns do not."""
    return matrix(np.array([[0.5, 0.5, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.25], [0, 0, 0.5, 0.5]]))


Changes = dict[str, Any]
BAD: dict[str, tuple[Changes, tuple[str, ...]]] = {
    "unknown algorithm": ({"algorithm": "gosip_sgd"}, ("algorithm", "'gosip_sgd'", "did you mean 'gossip_sgd'")),
    "unknown topology": ({"topology": "tourus"}, ("topology", "'tourus'", "did you mean 'torus'")),
    "unknown weights": ({"weights": "metropolitan"}, ("weights", "'metropolitan'", "did you mean 'metropolis'")),
    "unknown delay": (
        {"algorithm": "delayed_gossip_sgd", "delay": "geometry", "delay.max": 3},
        ("delay", "'geometry'", "did you mean 'geometric'"),
    ),
    "unknown cluster": ({"cluster": "exponentially"}, ("cluster", "did you mean 'exponential'")),
    "unknown profile": (
        {"cluster": "constant", "cluster.profile": "lineal"},
        ("cluster.profile", "did you mean 'linear'"),
    ),
    "unknown problem": ({"problem": "quadric", "problem.dim": None}, ("problem", "did you mean 'quadratic'")),
    "unknown data": ({**DIGITS, "data": "digit"}, ("data", "did you mean 'digits'")),
    "unknown partition": ({**DIGITS, "partition": "by_labels"}, ("partition", "did you mean 'by_label'")),
    "unknown optimizer": ({"optimizer": "adamm"}, ("optimizer", "did you mean 'adam")),
    "unknown schedule": ({"learning_rate.schedule": "cosine_deca"}, ("learning_rate.schedule", "cosine_decay")),
    "a schedule without its steps": (
        {"learning_rate.schedule": "cosine_decay"},
        ("learning_rate.decay_steps", "needs it"),
    ),
    "unknown metric": ({"metrics": "[los]"}, ("metrics", "did you mean 'loss'")),
    "unknown executor": ({"executor": "vmapp"}, ("executor", "did you mean 'vmap'")),
    "unknown precision": ({"precision": "float16"}, ("precision", "float32 or float64", "'float16'")),
    "unknown option": ({"problem.dims": 3}, ("problem.dims", "did you mean 'dim'")),
    "option of a topology": (
        {"topology": "ring", "topology.size": 3},
        ("topology.size", "ring has no such option"),
    ),
    "records by two measures": (
        {"record_every": 2, "record_seconds": 2.0},
        ("record_seconds: give one of record_every and record_seconds",),
    ),
    "a total batch that does not part": (
        {"total_batch": 10},
        ("total_batch: must be a multiple of workers=4, got 10",),
    ),
    "a clock by the batch without one": (
        {"cluster": "constant", "cluster.batch": 4},
        ("cluster.batch: the full gradient has no batch; give batch_size",),
    ),
    "a batch of nothing": (
        {"cluster": "constant", "cluster.batch": 0, "batch_size": 1},
        ("cluster.batch: must be at least 1",),
    ),
    "records at no time": ({"record_seconds": 0.0}, ("record_seconds: must be positive, got 0",)),
    "wrong type": ({"workers": "many"}, ("workers: must be int, got 'many' (str)",)),
    "wrong type of an option": ({"problem.dim": 2.5}, ("problem.dim: must be int, got 2.5",)),
    "wrong type of an optimizer's option": (
        {"optimizer": "adam", "optimizer.b1": "high"},
        ("optimizer.b1: must be a finite number (0, or from 1e-45 to 3e38), got 'high'",),
    ),
    "wrong type of a schedule's option": (
        {"learning_rate.schedule": "cosine_decay", "learning_rate.decay_steps": "many"},
        ("learning_rate.decay_steps: must be a finite number (0, or from 1e-45 to 3e38), got 'many'",),
    ),
    "an optimizer that needs more than gradients": ({"optimizer": "lbfgs"}, ("optimizer: lbfgs uses a line search",)),
    "a truth value is no number": ({"steps": True}, ("steps: must be", "got True")),
    "negative learning rate": ({"learning_rate": -0.1}, ("learning_rate", "not negative", "-0.1")),
    "learning rate that is no number": ({"learning_rate": ".nan"}, ("learning_rate", "finite", "nan")),
    "no workers": ({"workers": 0}, ("workers: must be positive, got 0",)),
    "no horizon": ({"steps": None}, ("steps: give exactly one of steps, gradients, seconds; got none",)),
    "two horizons": ({"seconds": 3}, ("give exactly one of steps, gradients, seconds; got steps, seconds",)),
    "negative seed": ({"seed": -1}, ("seed", "-1")),
    "hypercube of 12": (
        {"topology": "hypercube", "workers": 12},
        ("workers: hypercube needs a power of two, got 12", "try workers=8 or 16"),
    ),
    "torus of 7": ({"topology": "torus", "workers": 7}, ("workers: torus needs", "7", "try workers=9")),
    "disconnected graph": ({"topology": "disconnected"}, ("topology", "needs a connected graph", "strict")),
    "graph file in two parts": ({"topology": two_parts}, ("topology", "needs a connected graph")),
    "W not doubly stochastic": (
        {"weights": rows_only},
        ("mixing: W must be doubly stochastic for gossip_sgd", "largest column error", "(column 0)"),
    ),
    "weights of an irregular graph": (
        {"topology": "star", "weights": "uniform"},
        ("mixing: W must be doubly stochastic for gossip_sgd", "try metropolis"),
    ),
    "NaN in W": ({"weights": with_nan}, ("mixing: W must be finite; W[1, 2] is nan",)),
    "W of another size": (
        {"weights": lambda: matrix(np.full((3, 3), 1 / 3))},
        ("mixing: W is for 3 workers, got workers=4",),
    ),
    "a graph file that is missing": ({"topology": "no/graph.edges"}, ("topology: no file 'no/graph.edges'",)),
    "a graph file that is missing, its weights given": (
        {"topology": "no/graph.edges", "weights": "metropolis"},
        ("topology: no file 'no/graph.edges'",),
    ),
    "a matrix file that is missing": ({"weights": "w0.npy"}, ("weights: no file 'w0.npy'",)),
    "networkx without arguments": ({"topology": "networkx:cycle_graph"}, ("networkx:cycle_graph", "refused")),
    "delay larger than the buffer": (
        {"algorithm": "delayed_gossip_sgd", "delay": 8, "delay.max": 4},
        ("delay", "8 steps", "delay.max=4"),
    ),
    "law larger than the buffer": (
        {"algorithm": "delayed_sgd", "delay": "uniform", "delay.max": 4, "delay.high": 6},
        ("delay", "6 steps", "delay.max=4"),
    ),
    "negative delay": ({"algorithm": "delayed_sgd", "delay": -1}, ("delay", "-1")),
    "batch larger than the shard": (
        {**DIGITS, "batch_size": 1000},
        ("batch_size", "smallest shard", "got 1000", "use batch_size="),
    ),
    "more workers than samples": (
        {**DIGITS, "algorithm": "allreduce_sgd", "workers": 5000},
        ("workers", "number of samples", "5000"),
    ),
    "missing data file": (
        {**DIGITS, "data": "mnist"},
        ("train-images-idx3-ubyte.gz", "download https://", "DOPT_DATA_DIR"),
    ),
    "pmap of more workers than devices": ({"executor": "pmap", "workers": 100}, ("executor", "workers=100")),
    "mesh that does not divide": ({"executor": "mesh", "workers": 9}, ("executor", "workers=9")),
    "a server on devices": ({"algorithm": "async_sgd", "executor": "pmap"}, ("executor", "async_sgd", "use vmap")),
    "nothing within the horizon": (
        {"steps": None, "seconds": 0.5},
        ("seconds: no step is done within 0.5 s", "give more seconds"),
    ),
}


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_before_anything_is_compiled_or_written(
    changes: Changes,
    said: tuple[str, ...],
    command: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*args: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(files, "fetch", no_network)
    given = {name: value() if callable(value) else value for name, value in changes.items()}
    if command == "run":
        arguments = ["run", *flags(**given), "--results", "results/here"]
    else:
        plain = {k: yaml.safe_load(v) if v in (".nan", "[los]") else v for k, v in given.items()}
        content = grid(**plain)
        content["parameters"]["metrics"] = {"value": plain.get("metrics")}  # a list is one value here
        arguments = ["sweep", written(content)]
    fails(capsys, arguments, *said)


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ("COMMAND", "--help")),
        (["sweeep"], ("sweeep",)),
        (["run", "--results="], ("--results", "must be a folder, got ''", "leave the flag out")),
        (["sweep", "small.yaml", "--results", " "], ("--results", "must be a folder")),
        (["figures", "--folder="], ("--folder", "must be a folder")),
        (
            ["run", "--algoritm=gossip_sgd"],
            ("run: unknown argument '--algoritm=gossip_sgd'", "did you mean '--algorithm'"),
        ),
        (["run", "--toplogy.degree=3", *flags()], ("toplogy.degree: no such field", "did you mean 'topology.'")),
        (["run", "--problem.dim"], ("run: --problem.dim needs a value",)),
        (["run", "--workers=4"], ("algorithm: every run needs one",)),
        (["run", "--workers"], ("--workers",)),
        (["run", *flags(workers="[4")], ("workers: '[4' is not YAML of plain data",)),
        (["run", *flags(), "--devices", "0"], ("devices: must be at least 1, got 0",)),
        (["run", *flags(), "--devices", "99"], ("devices: there are 8 (cpu), got 99",)),
        (["run", *flags(), "--devices", "two"], ("devices", "'two'")),
        (["run", *flags(), "--wandb", "maybe"], ("maybe", "online")),
        (["sweep"], ("FILE",)),
        (["sweep", "nothing.yaml"], ("sweep: no file 'nothing.yaml'",)),
        (["sweep", "FILE", "--sett", "steps=3"], ("--sett", "did you mean '--set'")),
        (["sweep", "FILE", "--set", "steps"], ("set: must be KEY=VALUE, got 'steps'",)),
        (["sweep", "FILE", "--set", "step=3"], ("step: no such field", "did you mean 'steps'")),
        (["sweep", "FILE", "--set", "steps=[1"], ("steps: '[1' is not YAML of plain data",)),
        (["sweep", "FILE", "--set", "steps=[]"], ("steps", "at least one value")),
        (["list", "algorithm"], ("list: unknown kind 'algorithm'", "did you mean 'algorithms'")),
        (["figures", "--folder", "figs"], ("no figure files in 'figs'", "--folder")),
        (
            ["figures", "conectivity_delay", "--folder", str(ROOT / "paper_figs")],
            ("did you mean 'connectivity_delay'",),
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_command_that_means_nothing_is_one_line(
    arguments: list[str], said: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    file = written(grid())
    fails(capsys, [file if a == "FILE" else a for a in arguments], *said)


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ("sweep: must be a mapping",)),
        ("parameters: [", ("is not YAML",)),
        ({**grid(), "metod": "grid"}, ("sweep: unknown key 'metod'", "did you mean 'method'")),
        (
            {"parameters": {**grid()["parameters"], "seed": {"valeu": 1}}},
            ("unknown key 'valeu'", "did you mean 'value'"),
        ),
        ({"parameters": {**grid()["parameters"], "sed": {"value": 1}}}, ("sed: no such field", "did you mean 'seed'")),
        ({"parameters": {**grid()["parameters"], 3: {"value": 1}}}, ("3",)),
    ],
    ids=["empty", "no YAML", "key", "parameter's key", "parameter", "number as a name"],
)
def test_a_sweep_file_that_means_nothing_is_one_line(
    content: Any, said: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    fails(capsys, ["sweep", written(content)], *said)


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize("below", ["", "results", "a/b"])
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_results_folder_that_cannot_be_written_is_one_line(
    command: str, below: str, capsys: pytest.CaptureFixture
) -> None:
    """Below a regular file, since root may write into any folder."""
    file = Path("file")
    file.write_text("")
    arguments = ["run", *flags()] if command == "run" else ["sweep", written(grid())]
    fails(capsys, [*arguments, "--results", str(file / below)], "results: cannot write to", "--results", code=1)


def test_bad_input_in_a_process_is_one_line_too() -> None:
    done = process("run", *flags(topology="hypercube", workers=12))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"dopt: workers: hypercube needs a power of two, got 12; try .*\n", done.stderr)


# -- what it says -----------------------------------------------------------------------------------------------------

KINDS = {
    "algorithms": ("allreduce_sgd", "async_sgd", "gossip_sgd", "1705.09056"),
    "optimizers": ("sgd", "noisy_sgd", "contrib.muon"),
    "topologies": ("ring", "exponential", "2110.13363", "networkx:FUNCTION"),
    "weights": ("metropolis", "Xiao-Boyd-Kim"),
    "compressors": ("qsgd", "Alistarh"),
    "delays": ("constant", "geometric", "1810.03264"),
    "clusters": ("exponential", "1803.01113"),
    "problems": ("quadratic", "softmax", "2003.10422"),
    "data": ("digits", "mnist"),
    "partitions": ("by_label", "dirichlet", "1909.06335"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_what_there_is_and_its_source(kind: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    assert out.startswith(kind)
    for word in KINDS[kind]:
        assert word in out
    for entry in listing.registry(kind).values():
        assert re.search(rf"^{entry.name} +\S", out, re.MULTILINE), entry.name
        assert entry.summary, entry.name
        assert entry.source, entry.name


def test_list_lists_all_kinds(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert set(listing.REGISTRIES) == set(KINDS)
    for kind in KINDS:
        assert re.search(rf"^{kind}\s*$", out, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"dopt {described()}\n"


def test_every_field_of_a_run_is_a_flag(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = capsys.readouterr().out
    names = [f.name for f in dataclasses.fields(Run) if f.name != "options"]
    for name in names:
        assert f"--{name} " in said
    asked: list[Run] = []

    def instead(run: Run, **others: Any) -> None:
        asked.append(run)
        raise InputError("enough seen")

    monkeypatch.setattr(dopt, "run", instead)
    every = {
        "algorithm": "delayed_gossip_sgd",
        "workers": 4,
        "learning_rate": 1e-3,
        "optimizer": "adam",
        "problem": "softmax",
        "data": "digits",
        "partition": "iid",
        "topology": "ring",
        "weights": "metropolis",
        "mix": "dense",
        "delay": 3,
        "link_loss": 0.1,
        "cluster": None,
        "steps": 20,
        "gradients": None,
        "seconds": None,
        "batch_size": 8,
        "total_batch": None,
        "seed": 3,
        "record_every": 5,
        "record_seconds": None,
        "metrics": ["loss", "grad_norm"],
        "eval_samples": 100,
        "precision": "float64",
        "executor": "mesh",
        "strict": False,
    }
    assert sorted(every) == sorted(names)
    dotted = {"optimizer.b1": 0.8, "delay.max": 9}
    equals = [f"--{name}={value}" for name, value in {**every, **dotted}.items()]
    apart = [word for name, value in {**every, **dotted}.items() for word in (f"--{name}", str(value))]
    for arguments in (equals, apart):
        assert main(["run", *arguments]) == 2
        assert {**asked[-1].to_dict(), **every, **dotted} == asked[-1].to_dict()
        asked[-1].resolve()


def test_doctor_finds_nothing_wrong(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("python", "jax", "optax", "devices", "8 x cpu", "memory", "DOPT_DATA_DIR", "W&B", "can be written"):
        assert word in out
    assert not list(Path.cwd().iterdir())


def test_doctor_finds_what_is_wrong(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--results", str(tmp_path / "file" / "results")]) == 1
    assert "cannot write to" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 1
    assert "is not a folder" in " ".join(capsys.readouterr().out.split())


def test_devices_are_virtual_on_a_cpu() -> None:
    done = process("doctor", "--devices", "3", XLA_FLAGS="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 x cpu" in done.stdout


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(capsys: pytest.CaptureFixture) -> None:
    content = grid(algorithm=["allreduce_sgd", "gossip_sgd"], topology=["ring", "complete"], seed=list(range(40)))
    file = written(content)
    before = sorted(Path.cwd().parent.rglob("*"))
    assert main(["sweep", file, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("small: 120 runs (40 more merged), 2 groups\n")
    header, *rows = [line.split("  ") for line in out.splitlines() if re.match(r"(group  |\d )", line)]
    assert [word.strip() for word in header if word.strip()] == [
        "group",
        "runs",
        "slabs",
        "width",
        "memory of a slab",
        "host memory, about",
        "models kept",
        "compiled in",
    ]
    numbers = [[word.strip() for word in row if word.strip()] for row in rows]
    assert [row[:4] for row in numbers] == [["0", "40", "2", "20"], ["1", "80", "3", "27"]]
    assert all(re.fullmatch(r"[\d.]+ MiB", size) for row in numbers for size in row[4:6])
    assert [row[6] for row in numbers] == ["1", "1"]
    assert re.search(r"^this host has [\d.,]+ GiB free$", out, re.MULTILINE)
    reasons = re.findall(r"^group (\d) has the runs that share (.*)$", out, re.MULTILINE)
    assert [number for number, _ in reasons] == ["0", "1"]
    assert "algorithm=allreduce_sgd" in reasons[0][1]
    assert reasons[0][1].endswith("they differ only in values that the program takes as inputs: seed")
    assert "mix=dense" in reasons[1][1]
    assert reasons[1][1].endswith("they differ only in values that the program takes as inputs: seed, topology")
    assert sorted(Path.cwd().parent.rglob("*")) == before


def test_run_prints_the_history_and_keeps_it_where_asked(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", *flags(steps=40), "--wandb", "off"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, head, *rows = [line.split() for line in out.splitlines() if line.strip()]
    assert first[:3] == ["step", "0:", "loss"]
    assert head[:4] == ["step", "gradients", "time", "bytes_sent"]
    assert {"loss", "suboptimality", "consensus_distance", "grad_norm"} <= set(head)
    assert (rows[0][0], rows[-1][0]) == ("0", "40")
    assert not list(Path.cwd().iterdir())

    assert main(["run", *flags(steps=40), "--wandb", "off", "--results", "kept"]) == 0
    out = capsys.readouterr().out
    run = Run.from_dict({**BASE, "steps": 40})
    for name in ("runs", "history"):
        file = Path("kept") / f"{run.id}.{name}.parquet"
        assert f"wrote {file}" in out
        assert set(pd.read_parquet(file)["id"]) == {run.id}


def test_run_says_that_a_run_diverged(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", *flags(learning_rate=100.0, steps=50), "--wandb", "off"]) == 0
    assert re.search(r"^diverged at step \d+$", capsys.readouterr().out, re.MULTILINE)


def test_sweep_prints_the_table_and_the_paths(capsys: pytest.CaptureFixture) -> None:
    content = grid(algorithm=["allreduce_sgd", "gossip_sgd"], topology=["ring", "complete"], learning_rate=[0.1, 30.0])
    content |= {"metric": {"name": "suboptimality", "goal": "minimize", "target": 0.05}}
    file = written(content)
    assert main(["sweep", file, "--wandb", "off", "--set", "steps=200"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "small: 6 runs (2 more were merged: they differ only in what their method does not read)" in out
    head = next(line for line in out.splitlines() if line.startswith("algorithm"))
    assert re.split(r"  +", head.strip()) == [
        "algorithm",
        "topology",
        "best rate",
        "steps to suboptimality 0.05, to stay",
        "records apart",
        "final suboptimality",
        "seeds",
        "diverged",
        "grid edge",
    ]
    rows = [line.split() for line in out.splitlines() if "_sgd" in line]
    assert [row[:3] for row in rows] == [
        ["allreduce_sgd", "-", "0.1"],
        ["gossip_sgd", "ring", "0.1"],
        ["gossip_sgd", "complete", "0.1"],
    ]
    assert [row[-2:] for row in rows] == [["1", "edge"]] * 3  # rate 30 diverged in each cell
    folder = Path("results") / "small_steps-200"
    parts = (folder / name for name in ("plans", "slabs", "table.csv", "table.md", "plot.png"))
    listed = "wrote\n" + "".join(f"  {part}\n" for part in parts)
    assert listed + f"other pictures: dopt plot {folder} --kind curves" in out
    for path in listed.split()[1:]:
        assert Path(path).exists()

    assert main(["sweep", file, "--wandb", "off", "--set", "steps=200"]) == 0
    assert capsys.readouterr().out.startswith("all 6 runs of small are finished already; nothing to run\n")


# -- figures ----------------------------------------------------------------------------------------------------------

FIGURE = """
from matplotlib.figure import Figure
from dopt.figures import Claim

SWEEPS = {"one": {"parameters": %s}, "two": "benchmarks/two.yaml"}

def table(results):
    return results["one"].runs[["id", "final.loss"]]

def draw(results):
    figure = Figure()
    axes = figure.subplots()
    for part in results.values():
        axes.plot(part.history["step"], part.history["loss"])
    return figure

def claims(results):
    return [Claim("it falls", 0.5, 0.5 + MISSES, tolerance=0.1, differs="DIFFERS")]
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one figure, whose runs are there; who changes something takes `drawn`."""
    root = tmp_path_factory.mktemp("figures")
    (root / "paper_figs").mkdir()
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "two.yaml").write_text(yaml.safe_dump(grid()))
    write_figure(root, 0.0)
    folder = root / "paper_figs"
    parts = figures.parts("fig", figures.find("fig", folder), folder, root / "results")
    assert [part.folder.relative_to(root) for part in parts.values()] == [Path("results/fig/one"), Path("results/two")]
    fill.filled(parts, Show)
    return root


@pytest.fixture
def drawn(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(filled, tmp_path / "figures"))


def write_figure(root: Path, misses: float, differs: str = "", **changes: Any) -> None:
    """A figure whose one claim misses its value by so much."""
    text = FIGURE % {**grid()["parameters"], **changes}
    (root / "paper_figs" / "fig.py").write_text(text.replace("MISSES", str(misses)).replace("DIFFERS", differs))


@pytest.mark.parametrize(
    ("misses", "differs", "code", "verdict"),
    [
        (0.049, "", 0, "holds"),
        (0.051, "", 1, "fails"),
        (float("1e9"), "too fast", 0, "not reproduced"),
        (0.0, "too fast", 1, "holds after all"),
    ],
)
def test_figures_draws_and_checks_the_claims(
    misses: float,
    differs: str,
    code: int,
    verdict: str,
    capsys: pytest.CaptureFixture,
    drawn: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(drawn)
    write_figure(drawn, misses, differs)
    for names in ([], ["fig"], ["--gallery"]):
        assert main(["figures", "--folder", "paper_figs", *names]) == code
        out, err = capsys.readouterr()
        for ending in ("png", "pdf", "csv"):
            assert Path(f"results/figures/fig.{ending}").stat().st_size > 0
            assert out.count(f"fig.{ending}") == 1
        assert re.search(rf"^it falls +0\.5 +\S+ +±10 % +{verdict}\s*$", out, re.MULTILINE)
        assert err == ("" if code == 0 else f"dopt: fig: it falls: {verdict}\n")
    page = Path("paper_figs/GALLERY.md").read_text()
    assert f"| it falls | 0.5 | {claims.short(0.5 + misses)} | ±10 % | {verdict} |" in page
    assert ("**Not reproduced: it falls.** too fast" in page) == bool(differs)
    for ending in ("png", "csv"):
        assert Path(f"paper_figs/fig.{ending}").read_bytes() == Path(f"results/figures/fig.{ending}").read_bytes()


def test_fast_takes_a_tenth_of_the_seeds_and_widens_the_claims(
    capsys: pytest.CaptureFixture, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn)
    write_figure(drawn, 0.15, seed={"values": list(range(20))}, topology={"value": "ring"})
    assert main(["figures", "--folder", "paper_figs", "--fast", "--jobs", "1"]) == 0
    assert re.search(r"^it falls +0\.5 +0\.65 +±31\.6 % +holds\s*$", capsys.readouterr().out, re.MULTILINE)
    assert dopt.load("results/fig/one-fast").runs["seed"].drop_duplicates().tolist() == [0, 1]
    assert Path("results/figures/fig-fast.png").exists()
    for seeds, size, expected in (([0, 1], "full", list(range(10))), ([7], "full", [7]), ([7], "fast", [7])):
        write_figure(drawn, 0.0, seed={"values": seeds})
        folder = Path("paper_figs")
        part = figures.parts("fig", figures.find("fig", folder), folder, Path("results"), size)["one"]
        assert part.content["parameters"]["seed"]["values"] == expected


def test_two_processes_share_the_runs_of_a_figure(drawn: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(drawn)
    write_figure(drawn, 0.0)
    assert main(["figures", "--folder", "paper_figs", "--jobs", "2", "--results", str(tmp_path / "ours")]) == 0
    for part in ("fig/one", "two"):
        ours, alone = dopt.load(tmp_path / "ours" / part), dopt.load(drawn / "results" / part)
        pd.testing.assert_frame_equal(ours.history, alone.history)


def test_run_finds_a_run_by_its_id(drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(drawn)
    write_figure(drawn, 0.0, seed={"values": [7]})  # not among the results: of the figure's file
    there = dopt.load("results/two").runs.iloc[0]
    new = dataclasses.replace(dopt.load("results/two").run(there["id"]), seed=7, topology="ring").resolve()
    for identity in (there["id"], new.id):
        assert main(["run", "--id", identity, "--figures", "paper_figs", "--results", "one", "--wandb", "off"]) == 0
        assert pd.read_parquet(f"one/{identity}.runs.parquet")["id"].tolist() == [identity]
    Path("results").rename("own")
    Path("empty").mkdir()
    assert main(["run", "--id", there["id"], "--figures", "empty", "--results", "own", "--dry-run"]) == 0
    capsys.readouterr()
    for arguments, line in (
        (
            ["--id", "0123456789abcdef", "--figures", "paper_figs"],
            "id: no run '0123456789abcdef' in 'results', nor in dopt's figures and sweep files (or give --figures DIR); their tables have the ids",
        ),
        (["--id", "0123"], "id: must be 16 hex digits, as tables of results have them, got '0123'"),
        (["--id", new.id, "--seed", "3"], "seed: --id fixes all of a run; leave it out"),
    ):
        assert main(["run", *arguments]) == 2
        assert capsys.readouterr().err == f"dopt: {line}\n"


def test_the_largest_sweeps_are_looked_through_last(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drawn)
    write_figure(drawn, 0.0, seed={"values": list(range(20))})
    Path("paper_figs/another.py").write_bytes(Path("paper_figs/fig.py").read_bytes())
    asked = [content["parameters"].get("seed", {"values": [0]}) for content in figures._all_asked(Path("paper_figs"))]
    counts = [len(seeds["values"]) for seeds in asked if len(seeds["values"]) > 1]
    assert counts == [20, 20, 2, 2, 100, 100]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim("", 2.0, 2.1, tolerance=0.051), True),
        (Claim("", 2.0, 2.1, tolerance=0.049), False),
        (Claim("", 2.0, 1.9, absolute=0.11), True),
        (Claim("", 2.0, 2.0, "<="), True),
        (Claim("", 2.0, 2.01, "<="), False),
        (Claim("", 2.0, 2.01, "<=", tolerance=0.01), True),
        (Claim("", 2.0, math.inf, ">="), False),
        (Claim("", 2.0, math.inf, ">=", never=True), True),
        (Claim("", 2.0, -math.inf, "<="), False),
        (Claim("", 2.0, math.inf, never=True), False),
        (Claim("", math.inf, math.inf), False),
        (Claim("", math.inf, math.inf, never=True), True),
        (Claim("", math.inf, 2.0, ">=", tolerance=0.1, never=True), False),
        (Claim("", 2.0, math.nan, ">="), False),
        (Claim("", 2.0, math.nan, "<="), False),
        (Claim("", "ring", "ring"), True),
        (Claim("", True, False), False),
    ],
)
def test_a_claim_holds_iff_it_misses_by_no_more_than_it_may(claim: Claim, holds: bool) -> None:
    assert claim.holds is holds
    assert claim.right is holds
    assert dataclasses.replace(claim, differs="why").right is not holds


SMALL = {"topology": "[ring, complete]", "delay": "[0, 4]", "learning_rate": "[0.4, 1.6]", "seed": "[0, 1]"}
# suboptimality is left out: computing f* takes longer than the sweep
SMALL |= {"steps": "100", "metrics": "[[loss]]"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small version of the shipped sweep, run by the command, and what that said."""
    folder, said = tmp_path_factory.mktemp("shipped") / "results", io.StringIO()
    arguments = [word for item in SMALL.items() for word in ("--set", "=".join(item))]
    with contextlib.redirect_stdout(said):
        assert main(["sweep", str(SHIPPED), "--results", str(folder), "--wandb", "off", *arguments]) == 0
    return folder, said.getvalue()


def test_the_shipped_sweep_draws_its_picture(shipped: tuple[Path, str]) -> None:
    folder, out = shipped
    assert "connectivity_delay: 16 runs" in out
    assert "steps to loss 0.8" in out
    for ending in ("png", "pdf", "csv"):
        path = folder / f"connectivity_delay.{ending}"
        assert str(path) in out
        assert path.stat().st_size > 0
    cells = pd.read_csv(folder / "connectivity_delay.csv")
    assert cells["topology"].tolist() == ["ring", "ring", "complete", "complete"]
    assert cells["delay"].tolist() == [0, 4, 0, 4]
    assert cells["spectral_gap"].is_monotonic_increasing


@pytest.fixture
def figure_module() -> ModuleType:
    return figures.find("connectivity_delay", ROOT / "paper_figs")


def test_a_picture_is_the_same_bytes_every_time(shipped: tuple[Path, str], figure_module: ModuleType) -> None:
    drawn = []
    for _ in range(2):
        stem = shipped[0] / "connectivity_delay"
        paths = gallery.draw(figure_module, {"main": dopt.load(shipped[0])}, stem)
        drawn.append({path.name: path.read_bytes() for path in paths})
    assert set(drawn[0]) == {f"connectivity_delay.{ending}" for ending in ("png", "pdf", "csv")}
    assert drawn[0] == drawn[1]


def test_a_claim_that_is_wrong_is_found(shipped: tuple[Path, str], figure_module: ModuleType) -> None:
    results = dopt.load(shipped[0])
    assert all(claim.holds for claim in figure_module.claims({"main": results}))
    other = {"ring": "complete", "complete": "ring"}
    swapped = dataclasses.replace(results, runs=results.runs.assign(topology=results.runs["topology"].map(other)))
    assert not all(claim.holds for claim in figure_module.claims({"main": swapped}))
