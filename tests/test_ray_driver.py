"""`--engine ray` without Ray: what is refused, how slabs are handed out, which machines are taken, and what travels to them."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from small import make, small_sweep

import dopt
from dopt import InputError
from dopt.cli import main
from dopt.sweeps import luggage, on_ray, plan
from dopt.sweeps.driver import AHEAD, TRIES, Driver
from dopt.sweeps.engines import Asked
from dopt.sweeps.pipeline import Todo, todo_of, versions
from dopt.sweeps.remote import Failed, Machine, Made
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tracking import Tracker
from dopt.types import MachineError

# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_sweep()))
    return str(path)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--engine=rai"], "engine: unknown name 'rai'; did you mean 'ray'?"),
        (["--address=10.0.0.1:6379"], "address: is only for the engine ray; add --engine ray, or leave it out"),
        (["--kind=cpu"], "kind: is only for the engine ray; add --engine ray, or leave it out"),
        (
            ["--engine=ray", "--jobs=2"],
            "jobs: is only for the engine local; with ray use --cpus-per-slab or --gpus-per-slab",
        ),
        (
            ["--engine=ray", "--devices=2"],
            "devices: is only for the engine local; with ray use --cpus-per-slab or --gpus-per-slab",
        ),
        (
            ["--engine=ray", "--checkpoint-every=5"],
            "checkpoint_every: is only for the engine local, which keeps checkpoints in the folder; leave it out",
        ),
        (["--engine=ray", "--cpus-per-slab=0"], "cpus_per_slab: must be at least 1, got 0"),
        (["--engine=ray", "--gpus-per-slab=-1"], "gpus_per_slab: must be at least 1, got -1"),
        (
            ["--engine=ray", "--gpus-per-slab=1", "--cpus-per-slab=1"],
            "gpus_per_slab: a slab runs on CPUs or on GPUs; leave cpus_per_slab out",
        ),
        *(
            (
                ["--engine=ray", f"--address={address}"],
                f"address: must be HOST:PORT, got {address!r}; `ray status` shows the address of a cluster",
            )
            for address in ("here", "here:", ":6379", "here:0", "here:65536", "here:x", "ray://here:10001")
        ),
    ],
)
def test_what_no_ray_could_do_is_one_line(
    words: list[str], line: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", file, f"--results={tmp_path / 'out'}", *words]) == 2
    assert capsys.readouterr().err == f"dopt: {line}\n"
    assert not (tmp_path / "out").exists()


def test_who_has_no_ray_is_told_how_to_get_it(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    assert main(["sweep", file, "--engine=ray"]) == 2
    assert capsys.readouterr().err == "dopt: engine: ray needs ray, which is not installed; pip install 'dopt[ray]'\n"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (on_ray.SETTINGS.rjust(4, b"\0") + bytes(5), None),
        (b"HTTP/1.1 400 Bad Request", "what answers there is not Ray"),
        (b"", "what answers there is not Ray"),
        (None, "Connection refused"),
    ],
)
def test_an_address_where_no_ray_answers_is_one_line(answer: bytes | None, line: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            there, _ = server.accept()
            with there:
                there.recv(64)
                there.sendall(answer or b"")

        if answer is None:
            server.close()
        else:
            threading.Thread(target=serve, daemon=True).start()
        if line is None:
            on_ray._probe(address)
        else:
            with pytest.raises(MachineError) as refused:
                on_ray._probe(address)
            assert (
                str(refused.value)
                == f"ray: there is no Ray at {address} ({line}); start it there with `ray start --head`"
            )


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (RuntimeError("Version mismatch:\n  Ray: 2.1\n  Python: 3.9"), "Version mismatch: Ray: 2.1 Python: 3.9"),
        (
            RuntimeError("Traceback: ...\nRPC error: InvalidAuthToken: is missing"),
            "it asks for a token; set RAY_AUTH_MODE=token, here and at each `ray start`",
        ),
        (RuntimeError("Traceback: ...\n  a file\nLost: it is"), "Lost: it is"),
    ],
)
def test_what_ray_says_at_length_is_a_line(raised: Exception, line: str) -> None:
    outer = ConnectionError("Failed to connect")
    outer.__cause__ = raised
    assert on_ray._why(outer) == line


# -- handing out -------------------------------------------------------------------------------------------------------


class Fake:
    """Machines that give back what was made before, or what is said of a slab, one time after the other."""

    def __init__(self, made: dict[str, Made], **said: Sequence[Made | Failed | None]) -> None:
        self.made, self.said = made, {name: deque(each) for name, each in said.items()}
        self.started: list[str] = []
        self.most = 0
        self.cancelled: list[Any] = []

    def slots(self) -> int:
        return 2

    def start(self, slab: str) -> int:
        self.started.append(slab)
        return len(self.started) - 1

    def ended(self, tasks: Sequence[int], seconds: float) -> Sequence[int]:
        self.most = max(self.most, len(tasks))
        return list(tasks)[-1:]

    def outcome(self, task: int) -> Made | Failed | None:
        name = self.started[task]
        said = self.said.get(name)
        return said.popleft() if said else self.made[name]

    def cancel(self, tasks: Sequence[int]) -> None:
        self.cancelled += tasks


class Noted(Show):
    def __init__(self) -> None:
        self.slabs: list[tuple[str, int, int]] = []
        self.lines: list[str] = []

    def done(self, name: str, runs: int, diverged: int) -> None:
        self.slabs.append((name, runs, diverged))

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished sweep of 7 slabs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PREFERRED, "cpu", 2)
        folder = tmp_path_factory.mktemp("whole")
        dopt.sweep(small_sweep(steps=300), results=folder)
    return Store(folder)


@pytest.fixture
def todo(whole: Store) -> list[Todo]:
    path = whole.plan_path(1)
    return todo_of(plan.read(whole.plan(path), path))


@pytest.fixture
def made(whole: Store, todo: list[Todo]) -> dict[str, Made]:
    return {one.name: Made(whole.slab_files(one.name, one.runs.ids)) for one in todo}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "out")
    found.create()
    return found


def drive(machines: Fake, store: Store, todo: Sequence[Todo]) -> Noted:
    show = Noted()
    Driver(machines, store, Tracker("off", group="", folder=store.folder), show).run(todo)
    return show


def claims(store: Store, todo: Sequence[Todo]) -> list[bool]:
    """Whether each slab can be claimed."""
    with ExitStack() as held:
        return [held.enter_context(store.locked(one.name, wait=False)) for one in todo]


def test_each_slab_is_made_once_and_its_bytes_are_kept(
    whole: Store, store: Store, todo: list[Todo], made: dict[str, Made]
) -> None:
    machines = Fake(made)
    show = drive(machines, store, todo)
    assert sorted(machines.started) == [one.name for one in todo]
    assert machines.most == AHEAD * machines.slots()
    kept = {one.name: whole.read_slab(one.name, one.runs.ids)[0]["diverged"].to_pylist() for one in todo}
    assert sorted(show.slabs) == [(name, 2, sum(diverged)) for name, diverged in kept.items()]
    for one in todo:
        assert store.slab_files(one.name, one.runs.ids) == whole.slab_files(one.name, one.runs.ids)
    assert all(claims(store, todo))
    again = Fake({})
    assert sorted(drive(again, store, todo).slabs) == sorted(show.slabs)
    assert again.started == []


def test_a_lost_machine_is_no_failure_of_its_slabs(store: Store, todo: list[Todo], made: dict[str, Made]) -> None:
    name = todo[0].name
    machines = Fake(made, **{name: [None] * (2 * TRIES)})
    drive(machines, store, todo)
    assert machines.started.count(name) == 2 * TRIES + 1
    assert not store.failed_path(name).exists()


def test_a_slab_that_fails_again_and_again_leaves_the_others(
    store: Store, todo: list[Todo], made: dict[str, Made]
) -> None:
    name = todo[3].name
    machines = Fake(made, **{name: [Failed("OSError: no")] * TRIES, todo[4].name: [Failed("once")]})
    with pytest.raises(
        MachineError, match=rf"^ray: 1 of 7 slabs failed 3 times, for example {name} \(OSError: no\); the others"
    ):
        drive(machines, store, todo)
    assert [one.name for one in todo if not store.has(one.name)] == [name]
    said = json.loads(store.failed_path(name).read_bytes())
    assert said == {"slab": name, "error": "OSError: no", "tries": TRIES}
    drive(Fake(made), store, [todo[3]])
    assert store.has(name)
    assert not store.failed_path(name).exists()


def test_what_every_machine_would_refuse_ends_the_sweep(store: Store, todo: list[Todo], made: dict[str, Made]) -> None:
    machines = Fake(made, **{todo[3].name: [Failed("data: gone", is_input=True)]})
    with pytest.raises(InputError, match=r"^data: gone$"):
        drive(machines, store, todo)
    assert machines.cancelled == [0, 1, 2]
    assert all(claims(store, todo))


def test_a_slab_that_another_process_makes_is_waited_for(store: Store, todo: list[Todo], made: dict[str, Made]) -> None:
    held = ExitStack()
    assert held.enter_context(store.locked(todo[0].name, wait=False))

    class Watched(Fake):
        def ended(self, tasks: Sequence[int], seconds: float) -> Sequence[int]:
            if not tasks and not store.has(todo[0].name):  # all others are done
                store.put_slab(todo[0].name, made[todo[0].name].files)
                held.close()
            return super().ended(tasks, seconds)

    machines = Watched(made)
    show = drive(machines, store, todo)
    assert todo[0].name not in machines.started
    assert len(show.slabs) == 7


# -- machines ----------------------------------------------------------------------------------------------------------


class Lost(Exception):  # noqa: N818
    pass


class Other(Exception):  # noqa: N818
    pass


class FakeRay:
    """Nodes, each with what it says of itself; a task ends when it is asked for."""

    exceptions = SimpleNamespace(
        NodeDiedError=Lost,
        ObjectLostError=Lost,
        TaskCancelledError=Lost,
        TaskUnschedulableError=Lost,
        WorkerCrashedError=Other,
        RayError=Other,
    )

    def __init__(self, **kinds: str | Machine) -> None:
        self.kinds = {
            name: kind if isinstance(kind, Machine) else Machine(kind, versions()) for name, kind in kinds.items()
        }
        self.resources = {name: {"CPU": 3.0, "GPU": 0.0 if kind == "cpu" else 2.0} for name, kind in kinds.items()}
        self.dead: set[str] = set()
        self.options: list[dict[str, Any]] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": name, "Alive": name not in self.dead, "Resources": said, "NodeManagerAddress": f"at-{name}"}
            for name, said in self.resources.items()
        ]

    def remote(self, work: Any) -> Any:
        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda *words: (work, len(self.options) - 1))

        return SimpleNamespace(options=options)

    def wait(self, tasks: Sequence[Any], **_: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        return tasks[:1], tasks[1:]

    def where(self, task: Any) -> list[str]:
        return (
            self.options[task[1]]["label_selector"]["ray.io/node-id"].removeprefix("in(").removesuffix(")").split(",")
        )

    def get(self, task: Any) -> Any:
        (node,) = self.where(task)
        if node in self.dead:
            raise Lost
        return self.kinds[node]

    def cancel(self, task: Any, force: bool) -> None: ...


def found(ray: FakeRay, asked: Asked | None = None) -> on_ray.Cluster:
    cluster = on_ray.Cluster(ray, asked or Asked(), Show())
    cluster._find()
    return cluster


def test_all_machines_of_one_kind_are_taken_and_those_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "LOOK", 0.0)
    ray = FakeRay(a="cpu", b="cpu")
    cluster = found(ray)
    assert cluster.slots() == 6
    ray.dead.add("a")
    ray.kinds["c"], ray.resources["c"] = Machine("cpu", versions()), {"CPU": 5.0}
    assert cluster.slots() == 3 + 5
    assert ray.where(cluster.start("slab")) == ["b", "c"]
    assert ray.options[-1]["num_cpus"] == 1
    assert ray.options[-1]["runtime_env"]["env_vars"]["NPROC"] == "1"


def test_a_slab_has_the_cores_that_were_asked_for_or_the_threads_that_its_plan_says() -> None:
    ray = FakeRay(a="cpu")
    cluster = found(ray, Asked(cpus_per_slab=2))
    assert (cluster.slots(), cluster.threads) == (1, 2)
    cluster.agree(1)
    assert cluster.threads == 1
    with pytest.raises(InputError, match=r"^ray: no machine has 4 CPUs; the largest one has 3$"):
        found(FakeRay(a="cpu"), Asked(cpus_per_slab=4))


def test_a_cluster_of_several_kinds_is_refused_unless_one_is_named() -> None:
    with pytest.raises(InputError, match=r"^ray: some machines of the cluster have GPUs, but a plan is for one kind"):
        found(FakeRay(a="cpu", b="H100"))
    with pytest.raises(
        InputError, match=r"^ray: the cluster has devices of kinds 'A100' and 'H100', but a plan is for"
    ):
        found(FakeRay(a="H100", b="A100"))
    ray = FakeRay(a="H100", b="A100", c="cpu")
    cluster = found(ray, Asked(kind="A100"))
    assert list(cluster.known) == ["b"]
    assert cluster.slots() == 2
    assert cluster.threads is None
    assert ray.options[-1]["num_gpus"] == 1
    assert list(found(FakeRay(a="cpu", b="H100"), Asked(cpus_per_slab=1, kind="cpu")).known) == ["a"]
    with pytest.raises(InputError, match=r"^kind: no machine has devices of kind 'V100'; there are H100, A100$"):
        found(FakeRay(a="H100", b="A100"), Asked(kind="V100"))


def test_a_machine_with_other_versions_is_refused() -> None:
    other = Machine("cpu", versions() | {"jaxlib": "0.0.1"})
    with pytest.raises(
        MachineError, match=r"^ray: at-b has jaxlib 0.0.1, but this machine has .*; install the same version$"
    ):
        found(FakeRay(a="cpu", b=other), Asked(cpus_per_slab=1))


def test_slabs_whose_machines_are_all_gone_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "LOOK", 0.0)
    ray = FakeRay(a="cpu")
    cluster = found(ray)
    task = cluster.start("slab")
    ray.dead.add("a")
    assert cluster.slots() == 0
    ray.kinds["b"], ray.resources["b"] = Machine("cpu", versions()), {"CPU": 1.0}
    assert cluster.slots() == 1
    assert cluster.ended([task], 0.0) == [task]
    assert cluster.outcome(task) is None
    assert ray.where(cluster.start("slab")) == ["b"]


# -- what travels ------------------------------------------------------------------------------------------------------

PLUGIN = """
import numpy as np
from dopt.mixing import WEIGHTS
from {package}near import SHARE

@WEIGHTS.register()
def even(graph):
    return np.full((len(graph), len(graph)), SHARE / len(graph))
"""
SENDER = """
import pickle, sys
from pathlib import Path
{register}
from small import make
from dopt.sweeps import luggage

if __name__ == "__main__":
    run = make(topology="graph.edges", weights="even", data="text", problem="char_rnn")
    Path("luggage").write_bytes(pickle.dumps(luggage.packed([run])))
    print(dict(run.digests))
"""
RECEIVER = """
import pickle, sys
from pathlib import Path
from dopt.sweeps import luggage

luggage.unpack(pickle.loads(Path("luggage").read_bytes()))
from small import make
print(dict(make(topology="graph.edges", weights="even").digests))
"""


@pytest.mark.parametrize("where", ["a module", "a package", "the script"])
def test_files_and_plugins_arrive_as_they_were(where: str, tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir(), away.mkdir()
    (home / "graph.edges").write_text("0 1\n1 2\n2 3\n3 0\n")
    folder = home / "mine" if where == "a package" else home
    folder.mkdir(exist_ok=True)
    (folder / "near.py").write_text("SHARE = 1\n")
    (folder / "__init__.py").touch() if where == "a package" else None
    text = PLUGIN.format(package="mine." if where == "a package" else "")
    register = {"a module": "import own", "a package": "import mine.own", "the script": text}[where]
    if where != "the script":
        (folder / "own.py").write_text(text)
    (home / "send.py").write_text(SENDER.format(register=register).replace(', data="text", problem="char_rnn"', ""))
    root = Path(__file__).parents[1]
    env = {"PYTHONPATH": f"{root}:{root / 'tests'}", "JAX_PLATFORMS": "cpu", "DOPT_CACHE_DIR": str(tmp_path / "cache")}
    sent = subprocess.run([sys.executable, "send.py"], cwd=home, env=env, capture_output=True, text=True, check=True)
    (away / "luggage").write_bytes((home / "luggage").read_bytes())
    for path in home.rglob("*.py"):
        path.unlink()
    command = [sys.executable, "-c", RECEIVER]
    came = subprocess.run(command, cwd=away, env=env, capture_output=True, text=True)
    assert came.stdout == sent.stdout, came.stderr
    assert "code of weights" in came.stdout


def test_a_script_that_would_begin_its_sweep_on_each_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = b"import dopt\ndopt.sweep({}, results='again')\n"
    with pytest.raises(
        InputError, match=r"^ray: the script is read on each machine; call dopt.sweep under if __name__"
    ):
        luggage.unpack(luggage.Luggage({}, {}, {"job.py": script}, (), "job.py"))


def test_data_travel_below_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tinyshakespeare.txt").write_text("to be, or not to be " * 400)
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be, or not to be " * 400)
    base = {"problem": "transformer", "problem.dim": None, "batch_size": 2}
    runs = [make(**base, data="shakespeare"), make(**base, data="text", **{"data.file": "text.txt"})]
    packed = luggage.packed(runs)
    assert list(packed.data) == ["tinyshakespeare.txt"]
    assert list(packed.files) == ["text.txt"]
    laid = luggage._laid(packed)
    assert (laid / "data" / "tinyshakespeare.txt").read_bytes() == (tmp_path / "data/tinyshakespeare.txt").read_bytes()
    assert luggage._laid(pickle.loads(pickle.dumps(packed))) == laid
