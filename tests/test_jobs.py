"""Several processes share a sweep: the same bytes, no slab lost with a process that dies, and no process that stays."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import dopt
from dopt import InputError, engine
from dopt.cli import main
from dopt.cli.sweep import _points
from dopt.devices import host
from dopt.engine import compiled
from dopt.sweeps import hired, jobs, plan, seal, spec, work
from dopt.sweeps.jobs import Team
from dopt.sweeps.show import Show
from dopt.types import MachineError

SHORT = {"algorithm": "gossip_sgd", "workers": 4, "problem": "quadratic", "problem.dim": 4, "steps": 10}
CONTENT = {
    "name": "small",
    "parameters": {name: {"value": value} for name, value in SHORT.items()}
    | {"learning_rate": {"values": [0.1, 0.2]}, "seed": {"values": [0, 1]}},
}


class Noted(Show):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.slabs: list[tuple[str, int, int]] = []

    def done(self, name: str, runs: int, diverged: int) -> None:
        self.slabs.append((name, runs, diverged))

    def say(self, line: str) -> None:
        self.lines.append(line)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_helpers_make_the_same_bytes_and_none_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    here = dopt.sweep(CONTENT, results=tmp_path / "here")
    (tmp_path / "there").mkdir()
    shutil.copytree(tmp_path / "here" / "plans", tmp_path / "there" / "plans")
    monkeypatch.setattr(Team, "may_take", lambda self, slab: False)  # so that helpers do all of it
    before, show = set(psutil.Process().children(recursive=True)), Noted()
    there = dopt.sweep(CONTENT, results=tmp_path / "there", jobs=2, show=show)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert there.runs.equals(here.runs)
    assert tables(tmp_path / "there") == tables(tmp_path / "here")
    assert sorted(show.slabs) == [(f"0001-group0-slab{i:03d}", 1, 0) for i in range(4)]
    for path in tmp_path.glob("*/slabs/*/manifest.json"):
        assert seal.unseal(path.read_bytes())["threads"] == host.threads()


def test_the_plan_and_its_slabs_say_on_how_many_threads_they_run_and_others_are_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dopt.sweep(CONTENT, results=tmp_path)
    (slab,) = (tmp_path / "slabs").iterdir()
    written = seal.unseal((tmp_path / "plans" / "0001.json").read_bytes())
    assert written["threads"] == seal.unseal((slab / "manifest.json").read_bytes())["threads"] == host.threads()
    monkeypatch.setattr(Team, "_hire", lambda self: pytest.fail("nothing is missing"))
    monkeypatch.setattr(host, "threads", lambda: 99)
    assert dopt.sweep(CONTENT, results=tmp_path, jobs=3).missing == 0
    shutil.rmtree(slab)
    monkeypatch.setattr(Team, "_hire", lambda self: (_ for _ in ()).throw(MachineError("hired")))
    show = Noted()
    with pytest.raises(MachineError, match="hired"):
        dopt.sweep(CONTENT, results=tmp_path, show=show)
    threads = f"{written['threads']} threads" if written["threads"] > 1 else "one thread"
    assert show.lines == [
        f"results: the plan is for {threads}, and this process has 99: a helper process does what is missing"
    ]


@pytest.mark.parametrize("threads", [0, True, 1.0, "1", 10**6])
def test_a_plan_whose_threads_are_none_is_damaged(threads: Any, tmp_path: Path) -> None:
    dopt.sweep(CONTENT, results=tmp_path)
    path = tmp_path / "plans" / "0001.json"
    plan = seal.unseal(path.read_bytes())
    del plan[seal.SUM]
    path.write_bytes(seal.seal(plan | {"threads": threads}))
    with pytest.raises(InputError, match="its number of threads is invalid"):
        dopt.sweep(CONTENT, results=tmp_path)


def test_a_number_of_jobs_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sweep", "none.yaml", "--jobs", "0"]) == 2
    assert capsys.readouterr().err == "dopt: jobs: must be at least 1, got 0\n"
    with pytest.raises(InputError, match="jobs: must be at least 1, got -1"):
        dopt.sweep(CONTENT, results=tmp_path / "results", jobs=-1)
    monkeypatch.setattr(host, "threads", lambda: None)  # as on an accelerator
    with pytest.raises(InputError, match="jobs: processes share the cores of a CPU; on an accelerator there is one"):
        dopt.sweep(CONTENT, results=tmp_path / "results", jobs=2)
    assert not (tmp_path / "results").exists()


class Fake:
    """A helper that does what the test says."""

    def __init__(self, start: object = None) -> None:
        self.process = SimpleNamespace(poll=lambda: self.process.returncode, returncode=None)
        self.words: list[list[Any]] = []
        self.said: list[Sequence[Any]] = []
        self.last, self.slab, self.is_buried = "", None, False

    def heard(self) -> list[list[Any]]:
        words, self.words = self.words, []
        return words

    def tell(self, *words: Any) -> None:
        self.said.append(words)

    def dismiss(self) -> None: ...

    def end(self) -> None:
        self.process.returncode = 0


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> tuple[Team, Noted]:
    """Four processes on a CPU of two cores, this one among them."""
    monkeypatch.setattr(jobs, "Helper", Fake)
    show = Noted()
    team = Team(jobs=4, threads=1, here=1, show=show)
    team.cores = [4, 7]
    team.expect(100)
    team.go(Path("results"), None, [])
    return team, show


def dies(team: Team, number: int, code: int, *words: list[Any], last: str = "") -> None:
    helper: Any = team.helpers[number]
    helper.words, helper.last, helper.process.returncode = list(words), last, code
    team.look()
    team.look()  # is told once


def test_there_are_never_more_processes_than_slabs_and_each_begins_elsewhere(helped: tuple[Team, Noted]) -> None:
    team, _ = helped
    assert [helper.said[-1][3] for helper in team.helpers] == [0.25, 0.5, 0.75]
    team.expect(2)
    assert len(team.helpers) == 1
    team.expect(1)
    assert team.helpers == []
    assert [team._cores(i) for i in range(3)] == [[4], [7], [4]]


def test_what_helpers_have_done_is_shown_once(helped: tuple[Team, Noted]) -> None:
    team, show = helped
    team.helpers[0].words = [["slab", "a"], ["done", "a", 32, 3], ["done", "a", 32, 3]]  # type: ignore[attr-defined]
    team.look()
    assert show.slabs == [("a", 32, 3)]
    assert team.told == {"a"}


def test_a_dead_helpers_slab_is_done_again_once_and_why_it_died_is_said(helped: tuple[Team, Noted]) -> None:
    team, show = helped
    dies(team, 0, 0)  # nothing was left for it
    assert show.lines == []
    dies(team, 1, -signal.SIGKILL, ["slab", "a"])
    assert show.lines == [
        "jobs: a helper process was killed (SIGKILL: maybe the system ran out of memory); a is run again"
    ]
    assert team.may_take("a")
    team.see_to(["a"])
    dies(team, 2, 134, ["slab", "a"], last="terminate called")
    assert show.lines[1:] == ["jobs: a helper process died with exit code 134 (terminate called); a is skipped"]
    assert ("skip", "a") in team.helpers[0].said  # type: ignore[attr-defined]
    assert not team.may_take("a")
    assert team.may_take("b")
    team.see_to(["a", "b"])
    with pytest.raises(MachineError, match="jobs: 2 processes died while they worked on slab a; finished slabs are"):
        team.see_to(["a"])


def test_what_a_helper_is_refused_is_refused_here(helped: tuple[Team, Noted]) -> None:
    team, show = helped
    with pytest.raises(InputError, match=r"^results: data of run 1: no longer what it was$"):
        dies(team, 0, 2, last="dopt: results: data of run 1: no longer what it was")
    with pytest.raises(MachineError, match=r"^results: cannot write"):
        dies(team, 1, 1, last="dopt: results: cannot write")
    dies(team, 2, 1, ["slab", "a"], last="dopt: memory: the machine has no more; use fewer workers")  # others may have
    assert show.lines == [
        "jobs: a helper process died with exit code 1 (memory: the machine has no more; use fewer workers); a is run again"
    ]


def test_where_this_process_has_other_threads_helpers_do_all_and_are_replaced(helped: tuple[Team, Noted]) -> None:
    team, _ = helped
    team.agree(2)
    assert team.helpers == []
    assert (team.works_here, team.may_take("a"), team.width) == (False, False, 2)
    team.expect(1)
    assert len(team.helpers) == 1
    team.see_to(["a"])
    assert len(team.helpers) == 1
    dies(team, 0, -signal.SIGKILL)
    team.see_to([])
    assert len(team.helpers) == 1
    team.see_to(["a"])
    assert len(team.helpers) == 2
    dies(team, 1, -signal.SIGKILL)
    with pytest.raises(MachineError, match="jobs: helper processes die before they begin"):
        team.see_to(["a"])


def test_processes_are_no_more_than_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.memory, "available", lambda: 5 * 2**30)
    show = Noted()
    team = Team(jobs=4, threads=1, here=1, show=show)
    team.afford(2.0**30)
    assert (team.size, show.lines) == (4, [])
    team.afford(2.0**31)
    assert team.size == 2
    assert show.lines == ["jobs: 2 processes instead of 4, since each may take 2.0 GiB, and 5.0 GiB are free"]
    team.afford(1e12)
    assert team.size == 1


def test_a_cache_of_executables_that_cannot_be_written_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(host.jax.config, "update", said.__setitem__)
    monkeypatch.setenv("DOPT_CACHE_DIR", "/proc/none")
    host.keep_executables(1)
    assert said == {}
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path))
    kept = []
    for threads in (1, 2):
        host.keep_executables(threads)
        kept.append(Path(said["jax_compilation_cache_dir"]))
    assert kept[0] != kept[1]
    assert {path.parent for path in kept} == {tmp_path / "compiled"}


@pytest.mark.parametrize(
    ("own", "asked", "here", "threads", "works"),
    [
        (False, 1, 4, 4, True),  # in Python one process has the threads that it has
        (False, 2, 4, 1, False),
        (True, 1, 1, 1, True),
        (True, 1, 4, 1, False),  # the command found out too late that there is only a CPU
        (True, None, 1, 1, True),
    ],
)
def test_every_slab_of_the_command_and_of_several_jobs_runs_on_one_thread(
    own: bool, asked: int | None, here: int, threads: int, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[Sequence[int]] = []
    monkeypatch.setattr(host, "threads", lambda: here)
    monkeypatch.setattr(host, "keep_executables", lambda threads: None)
    monkeypatch.setattr(jobs.jax, "local_devices", lambda: [None])
    monkeypatch.setattr(jobs.cores, "is_own", lambda: own)
    monkeypatch.setattr(jobs.cores, "usable", lambda: [4, 7])
    monkeypatch.setattr(jobs.cores, "pin", pinned.append)
    with jobs.working(asked, Show()) as team:
        assert (team.threads, team.works_here, team.size) == (threads, works, asked or 2)
        # it compiles on the cores of all, where helpers only import, and works on its own
        assert pinned == ([[4, 7][: team.size]] if own and works else [])
        team.go(Path("results"), None, [])
    assert pinned[1:] == ([[4]] if own and works else [])


SWEEP = ("sweep.yaml", {"steps": 5})


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> list[tuple[hired.Start, Fake]]:
    """The command on three cores of a CPU; the helpers that it starts."""
    made: list[tuple[hired.Start, Fake]] = []

    def helper(start: hired.Start) -> Fake:
        made.append((start, Fake()))
        return made[-1][1]

    for name in (hired.DEVICES, "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hired, "Helper", helper)
    monkeypatch.setattr(jobs, "Helper", lambda start: pytest.fail("one began early"))
    monkeypatch.setattr(hired.cores, "is_own", lambda: True)
    monkeypatch.setattr(hired.cores, "may_have_accelerator", lambda: False)
    monkeypatch.setattr(hired.cores, "usable", lambda: [4, 7, 9])
    monkeypatch.setattr(hired.cores, "pin", lambda cores: None)
    monkeypatch.setattr(host, "threads", lambda: 1)
    monkeypatch.setattr(host, "keep_executables", lambda threads: None)
    monkeypatch.setattr(jobs.jax, "local_devices", lambda: [None])
    return made


def test_helpers_that_began_early_are_those_of_the_team(first: list[tuple[hired.Start, Fake]]) -> None:
    with hired.early(None, 65, *SWEEP):
        assert [start for start, _ in first] == [hired.Start([7], 1, 1), hired.Start([9], 1, 1)]
        assert [helper.said for _, helper in first] == [[("rehearse", *SWEEP, part)] for part in (1 / 3, 2 / 3)]
        with jobs.working(None, Show()) as team:
            assert team.cores == [4, 7, 9]
            team.expect(2)  # fewer slabs than were thought
            assert team.helpers == [helper for _, helper in first[:1]]
            assert [helper.process.returncode for _, helper in first] == [None, 0]
    assert [helper.process.returncode for _, helper in first] == [0, 0]


@pytest.mark.parametrize(
    ("asked", "runs", "begin"), [(None, 64, 1), (2, 1000, 1), (None, 32, 0), (None, 0, 0), (1, 65, 0)]
)
def test_as_many_begin_early_as_there_may_be_slabs_for(
    asked: int | None, runs: int, begin: int, first: list[tuple[hired.Start, Fake]]
) -> None:
    with hired.early(asked, runs, *SWEEP):
        assert len(first) == begin


@pytest.mark.parametrize("flags", [{hired.DEVICES: "2"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}])
def test_none_begins_early_where_this_process_must_be_asked_how(
    flags: dict[str, str], first: list[tuple[hired.Start, Fake]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in flags.items():
        monkeypatch.setenv(name, value)
    with hired.early(None, 1000, *SWEEP):
        assert first == []


def test_helpers_that_began_early_end_where_a_sweep_is_refused(first: list[tuple[hired.Start, Fake]]) -> None:
    with pytest.raises(InputError), hired.early(None, 65, *SWEEP):
        raise InputError("refused")
    assert [helper.process.returncode for _, helper in first] == [0, 0]


def test_a_helper_rehearses_the_group_of_its_first_slab_and_neither_solves_nor_takes_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []
    monkeypatch.setattr(engine, "rehearse", lambda group, width: made.append((group.first.algorithm, width)))
    methods = {"algorithm": {"values": ["allreduce_sgd", "gossip_sgd"]}}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({"name": "two", "parameters": CONTENT["parameters"] | methods}))
    for part in (0.0, 0.5):
        work.rehearse(str(path), {}, part)
    for left_out in ({"weights": "fastest"}, {"problem.dim": 10**6}):
        work.rehearse(str(path), left_out, 0.5)
    assert made == [("allreduce_sgd", 4), ("gossip_sgd", 4)]


def test_a_rehearsal_lowers_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, engine.Segment | None]] = []
    lower = compiled.lower

    def noted(group: engine.Group, width: int) -> compiled.Lowered:
        low = lower(group, width)

        def begin() -> Any:
            made.append((low.begin().as_text(), None))
            return low.begin()

        def replay(segment: engine.Segment) -> Any:
            made.append((low.replay(segment).as_text(), segment))
            return low.replay(segment)

        return low._replace(begin=begin, replay=replay)

    monkeypatch.setattr(compiled, "lower", noted)
    group = engine.group_of(spec.parse(CONTENT).runs)
    engine.compile(group, 2)
    there, made[:] = list(made), []
    engine.rehearse(group, 2)
    assert sorted(made, key=str) == sorted(there, key=str)


@pytest.mark.parametrize(
    ("content", "changes", "points"),
    [
        (CONTENT, {}, 4),
        (CONTENT, {"seed": [0, 1, 2], "steps": [5, 6]}, 12),
        (CONTENT, {"seed": 0}, 2),
        *((content, {}, 0) for content in ([], {}, {"parameters": None}, {"parameters": [1]})),
        ({"parameters": {"seed": {"values": 3}, "steps": 2, "workers": {"values": [2, 4]}}}, {}, 2),
    ],
)
def test_the_points_of_a_file_are_counted_before_it_is_checked(
    content: Any, changes: dict[str, Any], points: int
) -> None:
    assert _points(content, changes) == points
