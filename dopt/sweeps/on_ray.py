"""Slabs on the machines of a Ray cluster, or on this one by a Ray of its own. The driver, who is asked, keeps what tasks return.

Ray says where a task runs, and hands on what tasks share, once to each machine. Whether and when one is done again is ours to say
(`driver`), since a machine that is lost is no failure of a slab. Tasks go to machines that were looked at: those of one kind of
device, with the versions that are here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from dopt import cores, watch
from dopt.config import matrices
from dopt.sweeps import hired, luggage
from dopt.sweeps import plan as planning
from dopt.sweeps.agreement import Held, templates_of
from dopt.sweeps.driver import Driver, Task
from dopt.sweeps.engines import Asked, host_and_port
from dopt.sweeps.pipeline import Todo, versions
from dopt.sweeps.remote import Failed, Machine, Made, Work
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tracking import Tracker
from dopt.types import InputError, MachineError
from dopt.watch import check

if TYPE_CHECKING:
    from dopt.config import Resolved

PROBE = 2.0  # seconds in which somebody must answer at an address
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # of HTTP/2, on which Ray speaks
SETTINGS = b"\x04"  # kind of the frame with which a server answers; its length, of three bytes, stands before it
LOOK = 1.0  # seconds between two looks at which machines there are
NODE_ID = "ray.io/node-id"  # a label that Ray gives to each machine
PATIENCE = 2.0  # seconds in which Ray finds out that a machine has gone, after a process of it has
LOCAL = {  # of a Ray of our own: nobody is told of its use, and nobody hears it outside this machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
QUIET = {"configure_logging": True, "logging_level": logging.CRITICAL, "log_to_driver": False}


@contextmanager
def connected(asked: Asked, show: Show) -> Iterator[Cluster]:
    """The machines of a cluster; a Ray that was started for it is ended in the end.

    Raises:
      InputError: no cluster could do what is asked.
      MachineError: nobody answers, or Ray refuses.
    """
    ray = _imported(asked)
    if ray.is_initialized():  # this Python session is in a cluster already, and stays there
        yield Cluster(ray, asked, show)
        return
    if asked.address is not None:
        _probe(asked.address)
    before = set(psutil.Process().children())
    _start(ray, asked)
    end = partial(_kill, set(psutil.Process().children()) - before)
    watch.AT_ONCE.append(end)
    try:
        yield Cluster(ray, asked, show)
    finally:
        ray.shutdown()
        watch.AT_ONCE.remove(end)


def _kill(processes: Iterable[psutil.Process]) -> None:
    """End Ray's processes at once; of themselves some of them would look for the others for minutes."""
    for process in processes:
        with suppress(psutil.Error):
            for each in (*process.children(recursive=True), process):
                with suppress(psutil.Error):
                    each.kill()


def _imported(asked: Asked) -> Any:
    asked.check()
    for name, value in LOCAL.items() if asked.address is None else ():
        os.environ.setdefault(name, value)
    import ray

    return ray


def _probe(address: str) -> None:
    """MachineError where nobody answers, or nobody who could be Ray, which itself would wait for minutes."""
    try:
        with socket.create_connection(host_and_port(address), timeout=PROBE) as there:
            if os.environ.get("RAY_USE_TLS", "0") not in ("1", "true"):  # who speaks TLS says nothing to that
                there.sendall(HELLO)
                if there.recv(4)[3:] != SETTINGS:
                    raise OSError("what answers there is not Ray")
    except OSError as error:
        why = f"no answer in {PROBE:.0f} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise MachineError(
            f"ray: there is no Ray at {address} ({why}); start it there with `ray start --head`"
        ) from None


def _start(ray: Any, asked: Asked) -> None:
    """Start Ray, or go to where it runs; whatever it complains of becomes a line."""
    own: dict[str, Any] = {"num_cpus": len(cores.usable()), "include_dashboard": False}
    try:
        with hired.deaf(), _silent():
            ray.init(asked.address or "local", **QUIET, **(own if asked.address is None else {}))
    except Exception as error:  # of many kinds, and of many lines
        raise MachineError(f"ray: {asked.address or 'this machine'} refuses ({_why(error)})") from None


def _why(error: BaseException) -> str:
    """What Ray says at length, in a line; where a cluster wants a token, how it gets one."""
    if error.__cause__ is not None:
        return _why(error.__cause__)
    said = str(error).strip()
    if "AuthToken" in said or "AuthenticationError" in said:
        return "it asks for a token; set RAY_AUTH_MODE=token, here and at each `ray start`"
    lines = said.splitlines()
    return " ".join(" ".join(lines[-1:] if "Traceback" in said else lines).split())[:400]


@contextmanager
def _silent() -> Iterator[None]:
    """What Ray's own threads write where errors go is written nowhere, unless a signal ends the command: that is said."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    speak = partial(os.dup2, kept, 2)
    os.dup2(nowhere, 2)
    watch.AT_ONCE.append(speak)
    try:
        yield
    finally:
        watch.AT_ONCE.remove(speak)
        speak()
        os.close(kept)
        os.close(nowhere)


class _Given(NamedTuple):
    """A task that was started, and what there was then."""

    slab: str
    nodes: frozenset[str]


class Cluster:
    """The machines, as a sweep knows them: what they plan and make. It is the `Machines` of a driver."""

    def __init__(self, ray: Any, asked: Asked, show: Show) -> None:
        self.ray, self.asked, self.show = ray, asked, show
        self.threads = self._threads(None)
        self.known: dict[str, int] = {}  # machines that make slabs -> how many at once
        self.looked: set[str] = set()  # at, or being looked at
        self.probes: dict[Any, str] = {}  # task -> machine at which it looks
        self.given: dict[Task, _Given] = {}
        self.kind = asked.kind
        self.others: dict[str, None] = {}  # kinds of machines that are left out
        self.functions: dict[Any, Any] = {}  # as Ray knows them
        self.last = -math.inf  # when we looked
        self.key, self.work = "", None

    # -- what a sweep asks of whoever does it --

    def agree(self, threads: int | None) -> None:
        """Take the threads that a plan says: they decide about bits."""
        self.threads = self._threads(threads)

    def plan(self, held: Held) -> tuple[list[planning.Planned], dict[str, Any]]:
        """What the plans of a folder lack: planned on a machine of those that will make it, and as it is written."""
        asked = held.lacking
        assert asked is not None
        self._find()
        with matrices.keeping(held.matrices):
            work = self._packed(asked.runs.templates, [])
            found = self._ask_for_plan(self.ray.put(work), held)
        if isinstance(found, Failed):
            raise (InputError if found.is_input else MachineError)(found.error)
        plan = json.loads(json.dumps(found))
        return planning.read(plan, held.store.plan_path(held.number + 1)), plan

    def do(self, planned: Sequence[planning.Planned], missing: Sequence[Todo], store: Store, tracker: Tracker) -> None:
        """Make slabs."""
        self._find()
        plans = [path.read_bytes() for path in store.plan_paths()]
        work = self._packed(templates_of(planned), plans)
        self.key, self.work = f"{store.folder.absolute()} {len(plans)} {time.monotonic()}", self.ray.put(work)
        Driver(self, store, tracker, self.show).run(missing)

    def _packed(self, templates: Sequence[Resolved], plans: Sequence[bytes]) -> Work:
        found = {like.digests["matrix"]: matrices.matrix(like) for like in templates if matrices.is_solved(like)}
        return Work(luggage.packed(templates), plans, found, self.threads)

    def _ask_for_plan(self, work: Any, held: Held) -> Any:
        """The plan of a machine, of another one where that is lost."""
        while True:
            task = self._remote(_plan).remote(
                work, held.lacking, held.number + 1, held.extends, max(self.known.values())
            )
            while not self.ended([task], LOOK):
                check()
            found = self._outcome(task, frozenset(self.known))
            if found is not None:
                return found
            self._find()

    # -- machines --

    def _find(self) -> None:
        """Look at all machines that are there, and wait until one is ready."""
        self._look()
        if not self.looked:
            raise InputError(f"ray: no machine has {self._want}; {self._have()}")
        while self.probes:
            check()
            self.ended(list(self.probes), LOOK)
            self._look()
        if not self.known:
            raise InputError(f"kind: no machine has devices of kind {self.kind!r}; there are {', '.join(self.others)}")

    def slots(self) -> int:
        """How many slabs they make at once, now."""
        if time.monotonic() - self.last > LOOK:
            self._look()
        return sum(self.known.values())

    def _look(self) -> None:
        """See which machines came and went, and begin to look at those that are new."""
        self.last = time.monotonic()
        rooms = {node["NodeID"]: self._room(node["Resources"]) for node in self._alive()}
        self.known = {node: room for node, room in rooms.items() if node in self.known}
        for node, room in rooms.items():
            if room and node not in self.looked:
                self.looked.add(node)
                self.probes[self._remote(_look, node).remote()] = node
        for task in self.ended(list(self.probes), 0.0):
            node = self.probes.pop(task)
            found = self._outcome(task, frozenset([node]))
            if isinstance(found, Machine) and self._is_ours(node, found):
                self.known[node] = rooms.get(node, 0)
            elif isinstance(found, Failed):
                raise MachineError(f"ray: {self._name(node)}: {found.error}")

    def _is_ours(self, node: str, machine: Machine) -> bool:
        """Whether slabs may run there: all on one kind of device, with the same versions of all that decides about bits."""
        if self.kind is None:
            self.kind = machine.kind
        if machine.kind != self.kind:
            self.others.setdefault(machine.kind)
            if self.asked.kind is None:
                raise InputError(
                    f"ray: the cluster has devices of kinds {machine.kind!r} and {self.kind!r}, but a plan is for one kind; choose it with --kind"
                )
            return False
        here = versions()
        others = {name: said for name, said in machine.versions.items() if said != here.get(name)}
        for name, said in others.items():
            raise MachineError(
                f"ray: {self._name(node)} has {name} {said}, but this machine has {here.get(name)}; install the same version"
            )
        return True

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _name(self, node: str) -> str:
        return next((found["NodeManagerAddress"] for found in self.ray.nodes() if found["NodeID"] == node), node)

    @cached_property
    def gpus(self) -> int | None:
        """Of a slab; without a word those of a cluster in which each machine has some are used."""
        if self.asked.gpus_per_slab or self.asked.cpus_per_slab:
            return self.asked.gpus_per_slab
        some = {node["Resources"].get("GPU", 0) >= 1 for node in self._alive()}
        if some == {True, False} and self.asked.kind is None:
            raise InputError(
                "ray: some machines of the cluster have GPUs, but a plan is for one kind of machine; choose with --gpus-per-slab or --cpus-per-slab"
            )
        return 1 if True in some and self.asked.kind != "cpu" else None

    def _room(self, resources: Mapping[str, float]) -> int:
        """How many slabs a machine makes at once."""
        if self.gpus:
            return int(resources.get("GPU", 0) // self.gpus)
        return int(resources.get("CPU", 0) // (self.asked.cpus_per_slab or 1))

    @property
    def _want(self) -> str:
        return f"{self.gpus} GPUs" if self.gpus else f"{self.asked.cpus_per_slab or 1} CPUs"

    def _have(self) -> str:
        most = max((node["Resources"].get("GPU" if self.gpus else "CPU", 0) for node in self._alive()), default=0)
        return f"the largest one has {most:.0f}"

    def _threads(self, planned: int | None) -> int | None:
        return None if self.gpus else planned or self.asked.cpus_per_slab or 1

    # -- tasks --

    def _remote(self, work: Any, node: str | None = None) -> Any:
        """A function as a task: on that machine, or on any that was looked at."""
        nodes = [node] if node else list(self.known)
        known = self.functions.get(work) or self.functions.setdefault(work, self.ray.remote(work))
        return known.options(
            num_cpus=0 if self.gpus else self.asked.cpus_per_slab or 1,
            num_gpus=self.gpus or 0,
            max_retries=0,
            label_selector={NODE_ID: f"in({','.join(nodes)})"},
            runtime_env={"env_vars": self._environment()},
        )

    def _environment(self) -> dict[str, str]:
        """Of a process that makes slabs, before JAX is imported there."""
        if self.threads is None:
            return {"JAX_PLATFORMS": ""}
        start = hired.Start([], self.threads, 1).environment
        return {name: start[name] for name in ("XLA_FLAGS", hired.DEVICES, cores.THREADS, "JAX_PLATFORMS")}

    def start(self, slab: str) -> Task:
        """Let one of them make a slab."""
        task: Task = self._remote(_slab).remote(self.key, [self.work], slab)
        self.given[task] = _Given(slab, frozenset(self.known))
        return task

    def ended(self, tasks: Sequence[Task], seconds: float) -> Sequence[Task]:
        """Those that have ended; where none has, after so many seconds at most."""
        if not tasks:
            time.sleep(seconds)
            return []
        # what waits for machines that are all gone would wait for ever
        gone = [task for task in tasks if task in self.given and self.given[task].nodes.isdisjoint(self.known)]
        if gone and self.known:
            self.cancel(gone)
            return gone
        found: Sequence[Task] = self.ray.wait(list(tasks), num_returns=1, timeout=seconds)[0]
        return found

    def outcome(self, task: Task) -> Made | Failed | None:
        """What came of a task that has ended; None: it was lost with its machine, or is to be started again."""
        given = self.given.pop(task)
        found: Made | Failed | None = self._outcome(task, given.nodes)
        if found is None:
            self.show.say(f"ray: a machine was lost; {given.slab} is run again")
        return found

    def _outcome(self, task: Any, nodes: frozenset[str]) -> Any:
        """What a task returned; Failed where it ended otherwise, and None where one of the machines on which it may have run is gone."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except (errors.NodeDiedError, errors.ObjectLostError, errors.TaskCancelledError, errors.TaskUnschedulableError):
            return None
        except errors.WorkerCrashedError as error:
            return None if self._lost_one(nodes) else Failed(_line(error))
        except errors.RayError as error:
            return Failed(_line(error))

    def _lost_one(self, nodes: frozenset[str]) -> bool:
        """Whether one of these machines is gone, as Ray soon finds out."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if not nodes <= {node["NodeID"] for node in self._alive()}:
                return True
            time.sleep(0.1)
        return False

    def cancel(self, tasks: Sequence[Task]) -> None:
        """Nobody waits for these any more."""
        for task in tasks:
            with suppress(Exception):  # Ray may be what has ended
                self.ray.cancel(task, force=True)


def _line(error: Exception) -> str:
    """The first sentence of what Ray says at length."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:400]


def _look() -> Machine:
    from dopt.sweeps import remote

    return remote.look()


def _plan(*asked: Any) -> Any:
    from dopt.sweeps import remote

    return remote.plan(*asked)


def _slab(key: str, work: Sequence[Any], name: str) -> Any:
    import ray

    from dopt.sweeps import remote

    return remote.slab(key, partial(ray.get, work[0]), name)
