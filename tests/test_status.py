"""How far a sweep is: each slab counts once, looking changes nothing and costs little, and whoever works meanwhile is not in the way."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from small import small_sweep

import dopt
from dopt.cli import main
from dopt.cli import status as command
from dopt.sweeps import claims, plan, seal, status
from dopt.sweeps.claims import BEAT, STALE
from dopt.sweeps.live import PlainConsole, span
from dopt.sweeps.show import Show
from dopt.sweeps.status import SAMPLE, Count, Watch
from dopt.sweeps.store import MANIFEST, Reading, Store

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "data" / "stores" / "format-4"


def planned(folder: Path, slabs: dict[str, list[str]], number: int = 1) -> Store:
    """A folder with one more plan, of these slabs."""
    store = Store(folder)
    store.create()
    lists = {"varied": [], "columns": [], "digests": [], "templates": []}
    groups = [{"slabs": [{"name": name, "id": ids} for name, ids in slabs.items()]}]
    order = list(itertools.chain(*slabs.values()))
    store.write_plan(number, {"format": 5, "name": "hand", "merged": 0, **lists, "groups": groups, "order": order})
    return store


def finish(store: Store, name: str, run: float = 2.0, compiling: float = 1.0) -> None:
    folder = store.slab(name)
    folder.mkdir()
    (folder / MANIFEST).write_bytes(seal.seal({"seconds": {"run": run, "compile": compiling}}))


def claim(store: Store, name: str, ago: float = 0.0, **changes: Any) -> Path:
    """A claim of another host, whose file was written so many seconds ago."""
    said = {"token": "t", "node": "far", "system": "s", "pid": 7, "started": 1, "since": 1.8e9, "beats": 0, **changes}
    path = store.folder / "locks" / f"{name}.claim"
    path.write_text(json.dumps(said))
    now = status.time.time()
    os.utime(path, (now - ago, now - ago))
    return path


def of_a_dead_process() -> dict[str, Any]:
    """What a claim of this host says whose process has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    node, system = claims._here()
    return {"node": node, "system": system, "pid": process.pid, "started": None}


def names(held: Sequence[claims.Claim]) -> list[str]:
    return [one.name for one in held]


class Clock:
    """One that goes on only while somebody sleeps; `during` is called each time."""

    def __init__(self) -> None:
        self.now, self.slept, self.during = 1000.0, 0.0, lambda: None

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.8e9 + self.now

    def sleep(self, seconds: float) -> None:
        self.now, self.slept = self.now + seconds, self.slept + seconds
        self.during()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(status, "time", made)
    return made


# -- what there is ----------------------------------------------------------------------------------------------------


def test_each_slab_is_done_running_stale_failed_or_waiting(tmp_path: Path) -> None:
    ids = (f"{i:016x}" for i in itertools.count())
    first = {name: [next(ids), next(ids)] for name in ("a0", "a1", "a2", "a3", "a4", "a5", "a6")}
    second = {name: [next(ids), next(ids), next(ids)] for name in ("b0", "b1", "b2")}
    planned(tmp_path, first)
    store = planned(tmp_path, second, 2)
    order = [identity for name, each in {**first, **second}.items() if name != "b2" for identity in each]
    store.write_reading(Reading({"name": "loss"}, order[1:], [], 0))  # nothing of b2, and one run of a0
    finish(store, "a0", run=1.0)
    finish(store, "b0", run=3.0, compiling=9.0)
    finish(store, "b2", run=100.0)
    (tmp_path / "slabs" / ".tmp-a1-123").mkdir()
    claim(store, "a0", **of_a_dead_process())  # who was killed when it was done leaves that
    claim(store, "plan")
    claim(store, "a1", node="one")
    claim(store, "a2", node="one")
    claim(store, "a3", node="other", since=1.8e9 + 1)
    claim(store, "a4", **of_a_dead_process())
    (tmp_path / "set-aside" / "a5.0").mkdir(parents=True)
    (tmp_path / "set-aside" / "a5.1").mkdir()
    (tmp_path / "set-aside" / "a0.0").mkdir()  # it was made again
    (tmp_path / "failed").mkdir()
    for name, tries in {"a6": 3, "a1": 1, "b0": 2}.items():  # one is tried again, and one has come through
        text = json.dumps({"slab": name, "error": "ValueError: no", "tries": tries})
        (tmp_path / "failed" / f"{name}.json").write_text(text)

    found = dopt.status(tmp_path)
    assert (found.name, found.plans, found.folder) == ("hand", 2, tmp_path)
    assert found.asked == Count(9, 7 * 2 - 1 + 2 * 3)
    assert found.done == Count(2, 1 + 3)
    assert found.left == Count(7, 15)
    assert found.hidden == Count(1, 1 + 3)
    assert names(found.running) == ["a1", "a2", "a3"]
    assert [(one.node, one.pid, one.since) for one in found.running][2] == ("other", 7, 1.8e9 + 1)
    assert names(found.stale) == ["a4"]
    assert [(one.slab, one.tries) for one in found.failed] == [("a5", 2), ("a6", 3)]
    assert found.failed[1].error == "ValueError: no"
    assert found.waiting == 1  # b1
    assert found.workers == 2
    assert (found.seconds, found.compile_seconds) == (2.0, 5.0)  # of two the mean
    assert found.time_left == 7 * 2.0 / 2


def test_without_a_done_slab_or_anybody_at_work_the_time_left_is_unknown(tmp_path: Path) -> None:
    store = planned(tmp_path, {"a": ["1"], "b": ["2"]})
    assert (dopt.status(tmp_path).seconds, dopt.status(tmp_path).time_left) == (None, None)
    finish(store, "a")
    assert (dopt.status(tmp_path).seconds, dopt.status(tmp_path).time_left) == (2.0, None)
    claim(store, "b")
    assert dopt.status(tmp_path).time_left == 2.0
    (store.slab("a") / MANIFEST).write_text("{}")  # damaged, and nobody's business here
    assert (dopt.status(tmp_path).done, dopt.status(tmp_path).seconds) == (Count(1, 1), None)
    finish(store, "b")
    assert dopt.status(tmp_path).time_left == 0.0


def test_a_store_of_an_earlier_version_has_a_status(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    found = dopt.status(tmp_path / "old")
    assert (found.name, found.plans, found.done, found.left) == ("first", 1, Count(4, 44), Count(0, 0))
    assert found.seconds is not None
    shutil.rmtree(tmp_path / "old" / "slabs" / "group1-slab000")
    found = dopt.status(tmp_path / "old")
    assert (found.done.slabs, found.waiting) == (3, 1)


def test_a_failure_whose_file_says_nothing_is_still_one(tmp_path: Path) -> None:
    planned(tmp_path, {"a": ["1"]})
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "a.json").write_text("[")
    (one,) = dopt.status(tmp_path).failed
    assert one.slab == "a"
    assert "gives no reason" in one.error


# -- claims that may be dead ------------------------------------------------------------------------------------------


def test_a_claim_whose_file_is_new_is_believed_at_once(tmp_path: Path, clock: Clock) -> None:
    claim(planned(tmp_path, {"a": ["1"]}), "a", ago=STALE - 1)
    assert names(dopt.status(tmp_path).running) == ["a"]
    assert clock.slept == 0


@pytest.mark.parametrize("ago", [3600, -3600])
@pytest.mark.parametrize("moves", [True, False])
def test_a_claim_that_looks_dead_is_watched_for_two_beats_so_that_clocks_do_not_decide(
    ago: float, moves: bool, tmp_path: Path, clock: Clock
) -> None:
    store = planned(tmp_path, {"a": ["1"], "b": ["2"]})
    claim(store, "a", ago)
    claim(store, "b", **of_a_dead_process())
    if moves:
        clock.during = lambda: claim(store, "a", ago, beats=int((clock.now - 1000) / BEAT))
    found = dopt.status(tmp_path)
    assert (names(found.running), names(found.stale)) == ((["a"], ["b"]) if moves else ([], ["a", "b"]))
    assert BEAT <= clock.slept <= (BEAT if moves else 2 * BEAT) + BEAT / 5 + 1e-6


def test_a_claim_that_stands_still_while_we_watch_is_stale_until_it_moves_again(tmp_path: Path, clock: Clock) -> None:
    store = planned(tmp_path, {"a": ["1"]})
    claim(store, "a", beats=3)
    watch = Watch(tmp_path)
    for now in (0.0, STALE - 1):
        clock.now = 1000 + now
        claim(store, "a", beats=3)
        assert names(watch.look().running) == ["a"]
    clock.now = 1000 + STALE
    assert names(watch.look().stale) == ["a"]
    claim(store, "a", beats=4)
    assert names(watch.look().running) == ["a"]
    clock.now += STALE
    claim(store, "a", beats=0, pid=8)  # another process has taken it over
    assert names(watch.look().running) == ["a"]


# -- while others write -----------------------------------------------------------------------------------------------


class Looking(Show):
    """Looks at the folder whenever a slab is begun, or done."""

    def __init__(self, watch: Watch):
        self.watch, self.looks, self.lock = watch, list[status.Status](), threading.Lock()

    def look(self) -> None:
        with self.lock:
            self.looks.append(self.watch.look())

    def slab(self, name: str, runs: int) -> None:
        self.look()

    def done(self, name: str, runs: int, diverged: int) -> None:
        self.look()


def test_while_two_work_every_look_succeeds_and_what_is_done_only_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    show = Looking(Watch(tmp_path))
    given = {"results": tmp_path, "show": show}
    writers = [threading.Thread(target=dopt.sweep, args=(small_sweep(),), kwargs=given) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "plans" / "0001.json").exists():
            show.look()
        time.sleep(0.002)
    show.look()
    done = [found.done for found in show.looks]
    assert done == sorted(done)
    assert {found.asked for found in show.looks} == {Count(14, 14)}
    assert not any(found.failed or found.stale for found in show.looks)
    assert all(found.done.slabs + len(found.running) + found.waiting == 14 for found in show.looks)
    assert {(one.node, one.pid) for found in show.looks for one in found.running} == {(claims._here()[0], os.getpid())}
    assert show.looks[-1].left.slabs == 0
    assert len(set(done)) > 2
    assert dopt.load(tmp_path).missing == 0


def test_a_watch_sees_a_sweep_that_grows(tmp_path: Path) -> None:
    store = planned(tmp_path, {"a": ["1"]})
    store.write_reading(Reading({}, ["1"], [], 0))
    watch = Watch(tmp_path)
    assert watch.look().asked == Count(1, 1)
    planned(tmp_path, {"b": ["2", "3"]}, 2)
    assert (watch.look().asked, watch.look().hidden) == (Count(1, 1), Count(1, 2))  # nobody asks for it yet
    store.write_reading(Reading({}, ["1", "2"], [], 0))
    assert (watch.look().asked, watch.look().hidden, watch.look().plans) == (Count(2, 2), Count(0, 1), 2)


# -- looking ----------------------------------------------------------------------------------------------------------


class Calls:
    """What Python asks of the system while `on`."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[tuple[str, Any]]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (event == "open" or event.startswith(("os.", "shutil."))):
            self.seen.append((event, arguments))

    def __enter__(self) -> Calls:
        self.on, self.seen = True, []
        return self

    def __exit__(self, *error: object) -> None:
        self.on = False

    def opened(self, folder: Path) -> list[Path]:
        """Relative to the folder: the files of it that were opened."""
        paths = [
            Path(os.fsdecode(given[0])) for event, given in self.seen if event == "open" and isinstance(given[0], str)
        ]
        return [path.relative_to(folder) for path in paths if path.is_relative_to(folder)]


@pytest.fixture(scope="module")
def hook() -> Calls:
    """A hook cannot be taken out again, so there is one."""
    made = Calls()
    sys.addaudithook(made)
    return made


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """When each thing in a folder was changed, and what is in it."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in (folder, *folder.rglob("*"))
    }


@pytest.fixture
def busy(tmp_path: Path) -> Store:
    """A folder in which there is something of everything."""
    store = planned(tmp_path / "hand", {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"]})
    store.write_reading(Reading({}, ["1", "2", "3"], [], 0))
    finish(store, "a")
    claim(store, "b")
    claim(store, "c", **of_a_dead_process())
    return store


def test_looking_changes_nothing_and_needs_no_right_to(
    busy: Store, hook: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(busy.folder)
    folders = [busy.folder, *(path for path in busy.folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        with hook:
            assert main(["status", str(busy.folder)]) == 0
    finally:
        for path in folders:
            path.chmod(0o755)
    assert fingerprint(busy.folder) == before
    flags = [given[2] for event, given in hook.seen if event == "open" and str(busy.folder) in str(given[0])]
    assert flags
    assert not any(flag & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) for flag in flags)
    assert {event for event, _ in hook.seen} <= {
        "open",
        "os.listdir",
        "os.scandir",
        "os.kill",
    }  # the last asks whether a process lives
    assert "1 of 3 slabs done" in capsys.readouterr().out


def test_a_hundred_thousand_runs_take_a_few_listings_and_a_sample_of_manifests(
    tmp_path: Path, hook: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    slabs = {f"s{i:04d}": [f"{32 * i + k:016x}" for k in range(32)] for i in range(3125)}
    store = planned(tmp_path, slabs)
    store.write_reading(Reading({}, list(itertools.chain(*slabs.values())), [], 0))
    for name in list(slabs)[:3000]:
        (tmp_path / "slabs" / name).mkdir()
    claim(store, "s3001")
    stats = list[Path]()
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **options: stats.append(path) or stat(path, **options))
    watch = Watch(tmp_path)
    with hook:
        found = watch.look()
    assert (found.done, found.left, found.waiting) == (Count(3000, 96_000), Count(125, 4_000), 124)
    opened = [path.name for path in hook.opened(tmp_path)]
    manifests = opened.count(MANIFEST)
    assert SAMPLE / 2 < manifests <= SAMPLE
    assert sorted(set(opened) - {MANIFEST}) == ["0001.json", "reading.json", "s3001.claim"]
    assert len(opened) == manifests + 3
    assert sum(event in ("os.listdir", "os.scandir") for event, _ in hook.seen) < 10
    assert len(stats) < 10
    with hook:
        watch.look()
    assert "0001.json" not in [path.name for path in hook.opened(tmp_path)]  # a plan that is the same is not read again


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0512, "0.051 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60.0, "1 min"),
        (3599.6, "1 h"),
        (3661.0, "1 h 1 min"),
        (86_400.0, "1 d"),
        (90_000.0, "1 d 1 h"),
        (90_000.0 * 365, "380 d 5 h"),
    ],
)
def test_a_time_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_status_says_all_of_it(busy: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (busy.folder / "set-aside" / "c.0").mkdir(parents=True)
    claim(busy, "b", node="far\x1b[2J", since=float("nan"))
    assert main(["status", str(busy.folder)]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:4] == [
        f"hand in {busy.folder}: 1 plan",
        "1 of 3 slabs done (1 of 3 runs), 1 running, 1 failed",
        "2 s a slab after 1 s of compiling, 1 process at work, 4 s left",
        "1 run hidden, since the latest sweep call did not ask for them (1 whole slab)",
    ]
    assert "b running far\\x1b[2J 7 -" in lines
    assert "c 1 damaged, or of another plan: it was moved to set-aside" in lines
    assert err == ""


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch, busy: Store) -> list[str]:
    """What is done between two looks: one slab after the other, and at first nothing."""
    left = ["", "b", "", "c"]

    def pause(seconds: float) -> None:
        assert seconds == 0.5
        name = left.pop(0)
        if name:
            finish(busy, name)

    monkeypatch.setattr(command, "_pause", pause)
    return left


def test_watch_prints_a_line_for_each_change_and_ends_with_the_sweep(
    busy: Store, hours: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(busy.folder), "--every", "0.5"]) == 0
    assert hours == []
    out, err = capsys.readouterr()
    pace = "2 s a slab after 1 s of compiling"
    assert out.splitlines() == [
        f"1 of 3 slabs done (1 of 3 runs), 1 running, 1 stale; {pace}, 1 process at work, 4 s left",
        f"2 of 3 slabs done (2 of 3 runs), 1 stale; {pace}, no process at work",
        "3 of 3 slabs done (3 of 3 runs); all is done, in 2 s a slab",
    ]
    assert err == ""


def test_watch_on_a_terminal_shows_one_screen_that_ends_with_the_sweep(
    busy: Store, hours: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    terminal = PlainConsole(file=out, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"})
    monkeypatch.setattr(command, "console", lambda: terminal)
    assert main(["watch", str(busy.folder), "--every=0.5"]) == 0
    assert hours == []
    text = out.getvalue()
    assert "\x1b[?25l" in text  # the cursor is hidden,
    assert text.rindex("\x1b[?25h") > text.rindex("all is done")  # and there again
    assert all(f"\n{done} of 3 slabs done" in text for done in (1, 2, 3))  # the bar above has its own line
    assert text.index("1 of 3 slabs") < text.index("2 of 3 slabs") < text.index("3 of 3 slabs")


def test_watch_ends_at_ctrl_c(busy: Store) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "dopt", "watch", str(busy.folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("1 of 3 slabs done")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "dopt: interrupted\n")


@pytest.mark.parametrize("word", ["status", "watch"])
def test_a_folder_that_is_no_sweep_or_whose_files_are_damaged_is_refused(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    refused(capsys, [word, str(tmp_path / "empty")], "no sweep in", "run `dopt sweep FILE` first")
    refused(capsys, [word, str(tmp_path / "nowhere")], "no sweep in")
    refused(capsys, [word, ""], "must be a folder")
    refused(capsys, [word], "DIR")
    store = planned(tmp_path / "hand", {"a": ["1"]})
    (tmp_path / "hand" / "reading.json").write_text("{}")
    refused(capsys, [word, str(tmp_path / "hand")], "reading.json is damaged", "delete it")
    (tmp_path / "hand" / "reading.json").unlink()
    path = store.plan_path(1)
    path.write_bytes(path.read_bytes().replace(b'"merged": 0', b'"merged": 1'))
    refused(capsys, [word, str(tmp_path / "hand")], f"{path} is damaged", "altered")


@pytest.mark.parametrize("every", ["0", "-1", "nan", "inf", "3601", "often"])
def test_a_time_between_two_looks_is_one_that_can_be_slept(every: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["watch", str(OLD), f"--every={every}"], "every")
