"""Claims: one holder at a time; a dead one is followed, at once or when its counter stands still; no clock is compared."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import small_sweep

import dopt
from dopt.sweeps import claims, plan, work
from dopt.sweeps.claims import BEAT, STALE, Claim, Claims, held
from dopt.types import MachineError

ROOT = Path(__file__).parents[1]
BEGIN = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dopt.sweeps import claims
claims.WAIT = 0.001
folder = Path(sys.argv[1])
"""
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts another process, which has the folder of claims; ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BEGIN + code, str(tmp_path)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        with process:
            process.kill()


HOLD = """
with claims.Claims(folder).claim("x", wait=True):
    print("held", flush=True)
    time.sleep(100)
"""


def holding(start: Start, code: str = "") -> subprocess.Popen[str]:
    """A process that holds the claim "x"."""
    process = start(code + HOLD)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def is_free(of: Claims, name: str = "x") -> bool:
    with of.claim(name, wait=False) as mine:
        return mine


class Clock:
    """A monotonic clock that stands until it is told to go on, whose wall shows whatever it likes."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1.8e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(claims, "time", made)
    return made


def forge(folder: Path, **changes: Any) -> Path:
    """A claim of another host."""
    said = {"token": "t", "node": "far", "system": "s", "pid": 1, "started": 7, "since": 1.8e9, "beats": 0, **changes}
    path = folder / "x.claim"
    path.write_text(json.dumps(said))
    return path


def mine(**changes: Any) -> dict[str, Any]:
    """What a claim of this process says."""
    node, system = claims._here()
    pid = os.getpid()
    return {"node": node, "system": system, "pid": pid, "started": claims._state(pid)[1], **changes}


# -- one holder -------------------------------------------------------------------------------------------------------


def test_a_claim_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    with one.claim("x", wait=False) as first, other.claim("y", wait=True) as second:
        assert first
        assert second
        assert not is_free(one)
        assert not is_free(other)
        assert {claim.name for claim in held(tmp_path)} == {"x", "y"}
    with pytest.raises(KeyError), one.claim("x", wait=False):
        raise KeyError
    assert is_free(other)
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_one_at_a_time_holds_it_whoever_is_killed(tmp_path: Path, start: Start) -> None:
    log = tmp_path / "log"
    forge(tmp_path, **mine(started=-1))  # all of them find a dead one first
    many = """
claims.BEAT = 0.1  # after which a claim is followed whose process was killed before it wrote to it
mine = claims.Claims(folder)
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while not (folder / "enough").exists():
    with mine.claim("x", wait=True):
        os.write(log, f"in {os.getpid()}\\n".encode())
        os.write(log, f"out {os.getpid()}\\n".encode())
"""
    processes = [start(many) for _ in range(5)]
    killed = []
    for count, process in enumerate(processes[:3], 1):
        deadline = time.monotonic() + 60
        while (log.read_text() if log.exists() else "").count(f"in {process.pid}\n") < 20 * count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        killed.append(process.pid)
    (tmp_path / "enough").touch()
    assert [process.wait(60) for process in processes] == [-signal.SIGKILL] * 3 + [0] * 2
    lines = [line.split() for line in log.read_text().splitlines()]
    while lines:
        (word, who), *lines = lines
        assert word == "in"
        if lines and lines[0][1] == who and lines[0][0] == "out":
            lines = lines[1:]
        else:
            assert int(who) in killed
            killed.remove(int(who))  # once
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enough", "log"]


def test_a_claim_is_waited_for(tmp_path: Path, start: Start) -> None:
    process = start(HOLD.replace("time.sleep(100)", "time.sleep(0.2)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert not is_free(Claims(tmp_path))
    with Claims(tmp_path).claim("x", wait=True) as taken:
        assert taken
        assert held(tmp_path)[0].pid == os.getpid()


# -- a process of this host -------------------------------------------------------------------------------------------


def test_a_killed_process_is_followed_at_once(tmp_path: Path, start: Start) -> None:
    process = holding(start)
    observer = Claims(tmp_path)
    assert not is_free(observer)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and nobody has asked after it: a zombie
    (claim,) = held(tmp_path)
    assert claim.is_dead
    assert is_free(observer)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_got_the_number_of_a_dead_one_does_not_stand_for_it(tmp_path: Path) -> None:
    forge(tmp_path, **mine())
    assert not is_free(Claims(tmp_path))
    forge(tmp_path, **mine(started=mine()["started"] - 1))
    assert is_free(Claims(tmp_path))


def test_a_stopped_process_is_followed_after_a_while_and_leaves_its_followers_claim_alone(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "STALE", 0.3)
    process = holding(start, "claims.BEAT = 0.02\n")
    observer = Claims(tmp_path)
    until, counts = time.monotonic() + 0.6, set()
    while time.monotonic() < until:
        assert not is_free(observer)
        counts.add(held(tmp_path)[0].beats)
        time.sleep(0.02)
    assert len(counts) > 2
    process.send_signal(signal.SIGSTOP)
    with observer.claim("x", wait=True):
        (claim,) = held(tmp_path)
        assert claim.pid == os.getpid()
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        assert held(tmp_path) == [claim]
        process.send_signal(signal.SIGINT)  # it gives back what it has
        process.wait(60)
        assert held(tmp_path) == [claim]
    assert list(tmp_path.iterdir()) == []


# -- another host -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("pid", [1, 2**22 - 1, None])
def test_another_hosts_claim_is_taken_over_when_its_counter_stands_still_and_not_before(
    ahead: float, pid: int | None, tmp_path: Path, clock: Clock
) -> None:
    pid = pid or os.getpid()
    observer = Claims(tmp_path)
    for count in range(5):
        forge(tmp_path, pid=pid, since=clock.wall + ahead, beats=count)
        assert not is_free(observer)
        clock.now += STALE - 0.1
        clock.wall -= 7200
        assert not is_free(observer)
    clock.now += 0.2
    with observer.claim("x", wait=False) as taken:
        assert taken
        (claim,) = held(tmp_path)
        assert (claim.node, claim.pid) == (claims._here()[0], os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_new_claim_of_another_host_counts_from_its_beginning(tmp_path: Path, clock: Clock) -> None:
    observer = Claims(tmp_path)
    path = forge(tmp_path, token="one")
    assert not is_free(observer)
    path.unlink()
    clock.now += STALE - 1
    forge(tmp_path, token="two")
    assert not is_free(observer)
    clock.now += STALE - 1
    assert not is_free(observer)
    clock.now += 1
    assert is_free(observer)


@pytest.mark.parametrize("change", [{"node": "far"}, {"system": "another boot, or a container"}])
def test_what_another_hosts_processes_do_is_not_asked_of_this_one(change: dict[str, str], tmp_path: Path) -> None:
    forge(tmp_path, **mine(started=-1))
    assert held(tmp_path)[0].is_dead
    forge(tmp_path, **mine(started=-1, **change))
    assert not held(tmp_path)[0].is_dead
    assert not is_free(Claims(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"{}", b"[" * 10**5, b'{"pid": "1"}'])
def test_what_is_no_claim_does_not_hold_for_long(content: bytes, tmp_path: Path, clock: Clock) -> None:
    """As where a process was killed after it made the file, and before it wrote to it."""
    (tmp_path / "x.claim").write_bytes(content)
    observer = Claims(tmp_path)
    assert held(tmp_path) == []
    assert not is_free(observer)
    clock.now += BEAT - 1
    assert not is_free(observer)
    clock.now += 1
    assert is_free(observer)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
SAID = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("token", "node", "system", "pid", "started", "since", "beats"), VALUES)
)


@given(st.binary() | st.builds(lambda said: json.dumps({**mine(), "since": 1.0, "beats": 0, **said}).encode(), SAID))
def test_whatever_stands_in_a_claim_is_waited_for_or_followed(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.claim"
        path.write_bytes(content)
        dead = [claim.is_dead for claim in held(Path(folder))]
        assert is_free(Claims(Path(folder))) == (dead == [True])
        assert path.exists() == (dead != [True])


def test_who_dies_while_it_takes_over_is_followed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(tmp_path, **mine(started=-1))
    with monkeypatch.context() as patch:
        patch.setattr(claims._Own, "move", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), Claims(tmp_path).claim("x", wait=False):
            pass
    (left,) = tmp_path.glob("x.claim.*")
    assert not is_free(Claims(tmp_path))  # it lives, and may still be at it
    said = json.loads(left.read_text())
    left.write_text(json.dumps({**said, "started": -1}))
    assert is_free(Claims(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_who_finds_it_stale_too_late_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(tmp_path, **mine(started=-1))
    slow, fast, real = Claims(tmp_path), Claims(tmp_path), Claims._is_stale
    with fast.claim("y", wait=False):

        def stale(self: Claims, path: Path, line: bytes) -> bool:
            found = real(self, path, line)
            if self is slow:  # between its two looks another one has taken over
                os.replace(tmp_path / "y.claim", tmp_path / "x.claim")
            return found

        monkeypatch.setattr(Claims, "_is_stale", stale)
        assert not is_free(slow)
    assert [path.name for path in tmp_path.iterdir()] == ["x.claim"]


# -- what the machine refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_no_claim_can_be_made_it_is_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims, "open", refuse, raising=False)
    with pytest.raises(MachineError) as caught:
        is_free(Claims(tmp_path))
    assert str(caught.value) == (
        f"results: cannot lock {str(tmp_path / 'x.claim')!r} ({os.strerror(number)}); "
        "choose a folder on another file system with --results"
    )


def test_a_claim_that_finds_no_room_on_the_disk_is_not_left_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, mode: str) -> Any:
        open(path, mode).close()
        return open("/dev/full", "wb")

    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    monkeypatch.setattr(claims, "open", full, raising=False)
    with pytest.raises(MachineError, match=r"cannot lock .*No space left on device"):
        is_free(Claims(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_claim_whose_disk_went_away_troubles_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "locks"
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with Claims(folder).claim("x", wait=False):
        assert folder.rename(tmp_path / "away") != folder
        time.sleep(0.05)
    assert [claim.name for claim in held(tmp_path / "away")] == ["x"]


def test_empty_locks_of_an_older_dopt_are_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "x.lock").touch()
    assert held(tmp_path) == []
    assert is_free(Claims(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]


# -- who reads --------------------------------------------------------------------------------------------------------


def test_held_says_who_holds_what_since_when(tmp_path: Path, clock: Clock) -> None:
    with Claims(tmp_path).claim("group0-slab001", wait=False):
        (claim,) = held(tmp_path)
        node, system = claims._here()
        assert claim == Claim("group0-slab001", node, system, os.getpid(), claim.started, clock.wall, 0)
        assert not claim.is_dead
    assert held(tmp_path) == []
    assert held(tmp_path / "nowhere") == []


def test_where_the_system_says_nothing_of_processes_the_living_hold_and_the_dead_do_not(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no /proc, or one that counts the processes of another space than ours."""
    monkeypatch.setattr(claims, "os", SimpleNamespace(**{**vars(os), "readlink": lambda path: "1"}))
    assert claims._state(os.getpid()) == ("", None)
    forge(tmp_path, **mine())
    assert not is_free(Claims(tmp_path))
    process = start("")
    process.wait(60)
    forge(tmp_path, **mine(pid=process.pid))
    assert is_free(Claims(tmp_path))


# -- what rests on a claim --------------------------------------------------------------------------------------------


def test_who_is_stopped_while_it_plans_takes_the_plan_that_was_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    monkeypatch.setattr(claims, "STALE", 0.0)
    tmp_path.joinpath("results").mkdir()  # so that it plans under the claim
    real, widths = work.prepare, [2, 7]

    def prepared(*given: Any) -> Any:
        found = real(*given)
        if widths:  # another host has taken over, and is done before we go on
            monkeypatch.setitem(plan.PREFERRED, "cpu", widths.pop())
            dopt.sweep(small_sweep(), results=tmp_path / "results")
        return found

    monkeypatch.setattr(work, "prepare", prepared)
    results = dopt.sweep(small_sweep(), results=tmp_path / "results")
    assert results.missing == 0
    assert len(list((tmp_path / "results" / "plans").iterdir())) == 1
    assert len(list((tmp_path / "results" / "slabs").iterdir())) == 7
    assert list((tmp_path / "results" / "locks").iterdir()) == []
