"""What is said and drawn of a schedule: the same as the clock of a run says, bar by bar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from refusals import refused

from dopt import cluster, mixing, schedule
from dopt.algorithms import ALGORITHMS, options
from dopt.algorithms.traits import is_event_driven
from dopt.cli import main
from dopt.facts import clock, problem, timetable, wiring
from dopt.plot import gantt
from dopt.report import schedule as report
from dopt.schedule import ABORTED, APPLIED, PENDING, Barrier, Schedule, Waves
from dopt.types import Coordination, InputError

CLOCKLESS = {"delayed_sgd"}
METHODS = sorted(set(ALGORITHMS) - CLOCKLESS)
ARRIVING = [name for name in METHODS if is_event_driven(ALGORITHMS[name].traits.exchange(options(name, {}), 8))]
BARRIERS = sorted({*METHODS} - {*ARRIVING, "delayed_gossip_sgd"})
SLOW = {"cluster.straggler": 4, "cluster.latency": 0.1, "cluster.bandwidth": 100.0, "message_bytes": 10}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures without anything on them, which take no time."""
    monkeypatch.setattr(gantt, "draw", lambda *args: Figure())


def line_of(method: str, **given: Any) -> Schedule:
    return timetable.of(method, given)[0]


def engines(method: str, **given: Any) -> Any:
    """The timeline that a run is simulated with."""
    size = given.pop("message_bytes", 0)
    run = timetable.asked({"algorithm": method, **given})
    return clock.timeline(run, None if run.topology is None else wiring.matrix(run), clock.alike(run, 8 * size))


def fails(capsys: pytest.CaptureFixture, arguments: list[str], *said: str, code: int = 2) -> None:
    refused(capsys, arguments, *said, code=code)
    assert not list(Path.cwd().glob("schedule_*"))


def shown(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[dict[str, str], str]:
    """(the rows of the tables, of equal names the first, all that is said)."""
    assert main(["show", "schedule", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = (re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines())
    return {row[0]: row[1] for row in [*rows][::-1] if len(row) == 2}, out


# -- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [{"seconds": 12.0}, {"steps": 5}, {"gradients": 40}])
@pytest.mark.parametrize("method", BARRIERS)
def test_behind_a_barrier_steps_end_when_those_of_a_run_do(method: str, horizon: dict[str, Any]) -> None:
    found, told = line_of(method, **SLOW, **horizon), engines(method, **SLOW, **horizon)
    assert isinstance(told, Barrier)
    done = np.zeros(found.steps)
    np.maximum.at(done, found.write_version[found.applied], found.time[found.applied])
    np.testing.assert_array_equal(done, told.time)
    assert found.end == horizon.get("seconds", told.time[-1])
    assert (np.bincount(found.write_version[found.applied]) == found.workers).all()
    assert not found.staleness.any()


@pytest.mark.parametrize("method", ARRIVING)
def test_arrivals_are_those_of_a_run(method: str) -> None:
    found, told = line_of(method, **SLOW, steps=9), engines(method, **SLOW, steps=9)
    for name, column in found.columns.items():
        np.testing.assert_array_equal(column, getattr(told, name), err_msg=name)


@pytest.mark.parametrize("horizon", [{"seconds": 12.0}, {"steps": 5}, {"gradients": 40}])
def test_who_never_waits_updates_when_a_run_without_barriers_does(horizon: dict[str, Any]) -> None:
    found = line_of("delayed_gossip_sgd", delay="cluster", **SLOW, **horizon)
    told = engines("delayed_gossip_sgd", delay="cluster", **SLOW, **horizon)
    assert isinstance(told, Waves)
    n, steps = found.workers, len(told.time)
    np.testing.assert_array_equal(found.time[found.applied][n - 1 :: n][:steps], told.time)
    assert "waiting" not in schedule.intervals(found).kind


def test_the_rows_behind_a_barrier_are_those_of_the_lockstep() -> None:
    machines = cluster.make("exponential", 8, 0)
    found = line_of("allreduce_sgd", steps=6)
    told = schedule.lockstep(machines, steps=6).schedule()
    for name in ("begin", "done", "sends", "time"):
        np.testing.assert_array_equal(
            np.sort(getattr(found, name)[found.applied]), np.sort(getattr(told, name)), err_msg=name
        )


def test_a_worker_ahead_of_the_others_has_work_that_is_pending() -> None:
    found = line_of("gossip_sgd", cluster="constant", seconds=8.5, **{"cluster.straggler": 8})
    assert found.steps == 1
    per_worker = np.bincount(found.worker[found.fate == PENDING], minlength=8)
    hops = np.array([1, 2, 3, 4, 3, 2, 1, 0])  # to the last worker; who is h away could do h - 1 steps without it
    np.testing.assert_array_equal(per_worker, np.maximum(1, hops - 1))
    assert (found.time <= 8.5).all()


def test_what_a_crash_breaks_is_aborted_and_done_again() -> None:
    found = line_of("allreduce_sgd", cluster="constant", seconds=6.0, **{"cluster.crash": 1.5, "cluster.restart": 1.0})
    broken = np.flatnonzero(found.fate == ABORTED)
    assert (found.worker[broken].item(), found.begin[broken].item(), found.done[broken].item()) == (0, 1.0, 1.5)
    again = (found.worker == 0) & (found.batch == 1) & found.applied
    assert (found.begin[again].item(), found.time[again].item()) == (2.5, 3.5)
    assert schedule.summary(found)["shares"]["wasted"] == pytest.approx(0.5 / (8 * 6))


def test_bytes_are_the_messages_of_all_workers() -> None:
    steps, n, size = 3, 8, 10
    given: dict[str, Any] = {"steps": steps, "message_bytes": size}
    assert line_of("allreduce_sgd", **given).bytes.sum() == pytest.approx(steps * 2 * (n - 1) * size)
    found = line_of("gossip_sgd", **given, **{"algorithm.rounds": 2})
    assert found.bytes[found.applied].sum() == steps * 2 * 2 * n * size
    found = line_of("gossip_sgd", **given, **{"algorithm.local_steps": 3})
    assert found.bytes[found.applied].sum() == 2 * n * size
    found = line_of("delayed_gossip_sgd", **given)
    assert found.bytes.sum() == steps * n * 2 * size
    assert line_of("ad_psgd", **given).bytes.sum() == steps * 2 * size


# -- who failed -------------------------------------------------------------------------------------------------------


def test_of_who_was_computing_the_schedule_alone_tells_when_it_failed() -> None:
    crash: dict[str, Any] = {"cluster.crash": 5.0, "cluster.crash_workers": 3}
    for method in ("async_sgd", "ringmaster_sgd", "k_batch_sync_sgd", "ad_psgd"):
        for more in ({}, {"cluster.restart": 4.0}):
            line, failed, _ = timetable.of(method, crash | more)
            assert [o.worker for o in failed] == [0, 1, 2]
            assert timetable.outages(line) == failed
    assert timetable.outages(line_of("rennala_sgd", **{"algorithm.stop": True})) == []


@pytest.mark.parametrize("method", ["allreduce_sgd", "gossip_sgd", "malenia_sgd"])
def test_where_all_are_needed_a_crash_stalls_the_clock_and_it_says_for_whom(
    method: str, capsys: pytest.CaptureFixture, blank: None
) -> None:
    crash: dict[str, Any] = {"cluster.crash": 4.0, "cluster.crash_workers": 2}
    for horizon in ({"seconds": 60.0}, {"steps": 50}):
        line, failed, _ = timetable.of(method, crash | horizon)
        last = line.time[line.applied].max()
        words = dict(report.rows(line, failed))
        assert words["stalled"] == f"no update after {last:.4g} s: workers 0, 1 never returned"
        assert words["down"] == "workers 0, 1 from 4 s on, permanently"
        assert line.end >= 4
    words, _ = shown(capsys, method, "--cluster.crash=4", "--seconds=60")
    assert words["stalled"].endswith("worker 0 never returned")


def test_who_does_not_wait_goes_on(capsys: pytest.CaptureFixture, blank: None) -> None:
    for method in ("async_sgd", "ad_psgd"):
        words, _ = shown(capsys, method, "--cluster.crash", "4", "--cluster.restart", "2")
        assert words["down"] == "worker 0 from 4 s to 6 s"
        assert "stalled" not in words


# -- the picture ------------------------------------------------------------------------------------------------------


def bars(axes: Any) -> dict[str, np.ndarray]:
    """Kind -> [bars, 3]: worker, begin, end; in order."""
    found = {}
    for collection in axes.collections:
        assert isinstance(collection, PolyCollection)
        corners = np.array([path.vertices[:4] for path in collection.get_paths()])
        rows = np.stack([corners[:, :, 1].mean(1), corners[:, :, 0].min(1), corners[:, :, 0].max(1)], 1)
        found[str(collection.get_label())] = rows[np.lexsort(rows.T[::-1])]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_bars_are_intervals_and_ticks_are_updates(method: str) -> None:
    line, failed, _ = timetable.of(method, SLOW | {"cluster.crash": 9.0, "cluster.restart": 1.0})
    above, *below = gantt.draw(line, method, failed).axes
    found, told = bars(above), schedule.intervals(line)
    assert set(found) == set(told.kind)
    for kind, rows in found.items():
        of = told.kind == kind
        expected = np.stack([told.worker[of], told.begin[of], told.end[of]], 1)
        np.testing.assert_allclose(rows, expected[np.lexsort(expected.T[::-1])], atol=1e-12)
    marks = {str(mark.get_label()): mark for mark in above.lines}
    np.testing.assert_array_equal(np.sort(np.asarray(marks["update"].get_xdata())), schedule.batches(line).time)
    assert np.asarray(marks["down"].get_xdata()).tolist() == [9.0, 10.0]
    assert len(below) == bool(line.staleness[line.delivered].any())


@pytest.mark.parametrize("method", ["async_sgd", "drop_stale_sgd", "rennala_sgd"])
def test_the_histogram_has_each_gradient_once(method: str) -> None:
    given: dict[str, Any] = {"cluster.straggler": 50, "seconds": 150.0}
    given |= {"algorithm.max_staleness": 3} if method == "drop_stale_sgd" else {}
    line = line_of(method, **given)
    _, below = gantt.draw(line, method).axes
    tall = sum(patch.get_height() for patch in below.patches)
    assert tall == line.delivered.sum()
    names = [text.get_text() for text in below.get_legend().get_texts()]
    assert ("dropped" in names) == (schedule.summary(line)["computations"]["dropped"] > 0)
    assert len(below.patches) <= 2 * 81  # however stale
    assert sum(count for _, count, _ in report.histogram(line)) in (0, line.applied.sum())
    assert len(report.histogram(line)) <= report.BINS


def test_methods_can_be_drawn_side_by_side() -> None:
    figure = Figure()
    grid = figure.subplots(2, 1, sharex=True)
    for axes, method in zip(grid, ("allreduce_sgd", "async_sgd"), strict=True):
        gantt.gantt(axes, line_of(method))
    gantt.legend(figure, grid[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["computing", "waiting", "update"]


def test_ten_thousand_intervals_are_four_collections() -> None:
    line = schedule.arrivals(cluster.make("exponential", 16, 0), Coordination(gradients=8, waits=True), gradients=5000)
    assert len(schedule.intervals(line).kind) > 9000
    figure = gantt.draw(line)
    assert len(figure.axes[0].collections) <= 4
    figure.savefig("all.png")


def test_of_many_workers_the_first_are_drawn_and_it_says_so(capsys: pytest.CaptureFixture) -> None:
    line = line_of("async_sgd", workers=70, seconds=5.0)
    axes = gantt.draw(line).axes[0]
    assert bars_of(axes) == set(range(64))
    assert axes.get_ylabel() == "worker (the first 64 of 70)"
    _, out = shown(capsys, "async_sgd", "--workers=70", "--seconds=5")
    assert "the first 64 of 70 workers" in out
    _, out = shown(capsys, "async_sgd", "--workers=64", "--seconds=5")
    assert "the first" not in out


def bars_of(axes: Any) -> set[int]:
    return {round(row[0]) for rows in bars(axes).values() for row in rows}


def test_the_same_schedule_gives_the_same_bytes() -> None:
    line = line_of("ssp_sgd", **SLOW)
    once = [path.read_bytes() for path in gantt.save(line, "one", "title", Path("a"))]
    again = [path.read_bytes() for path in gantt.save(line, "one", "title", Path("b"))]
    assert once == again


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("method", METHODS)
def test_what_is_printed_is_the_summary(method: str, capsys: pytest.CaptureFixture) -> None:
    words, _ = shown(
        capsys, method, "--cluster.straggler=4", "--cluster.latency=0.1", "--message_bytes=10", "--seconds", "16"
    )
    given: dict[str, Any] = {"cluster.straggler": 4, "cluster.latency": 0.1, "message_bytes": 10, "seconds": 16}
    told = schedule.summary(line_of(method, **given))
    assert words[method].startswith("8 workers, exponential")
    assert words[method].endswith("straggler 4, latency 0.1")
    assert words["steps"] == str(told["steps"])
    assert float(words["seconds"]) == told["seconds"] == 16
    assert float(words["updates per second"]) == pytest.approx(told["updates_per_second"], rel=1e-3)
    fates = {name: int(number) for number, name in (part.split() for part in words["computations"].split(", "))}
    assert fates == told["computations"]
    stale = [float(part.split()[-1]) for part in words["staleness"].split(", ")]
    assert stale == pytest.approx([told["staleness_mean"], *told["staleness_quantiles"].values()], rel=1e-3)
    shares = {name: float(share.rstrip("%")) for name, share in map(str.split, words["workers' time"].split(", "))}
    assert shares == pytest.approx({name: 100 * share for name, share in told["shares"].items()}, abs=0.051)
    assert float(words["bytes"]) == pytest.approx(told["bytes"], rel=1e-3)


def test_pictures_are_written_and_said_where(capsys: pytest.CaptureFixture) -> None:
    _, out = shown(capsys, "k_sync_sgd", "--algorithm.k=5", "--cluster.straggler", "4", "--results", "pictures/here")
    assert out.endswith("wrote pictures/here/schedule_k_sync_sgd.png\nwrote pictures/here/schedule_k_sync_sgd.pdf\n")
    assert len(np.unique(imread("pictures/here/schedule_k_sync_sgd.png").reshape(-1, 4), axis=0)) > 10
    assert Path("pictures/here/schedule_k_sync_sgd.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("blank")
def test_a_saved_schedule_is_shown_as_it_was(capsys: pytest.CaptureFixture) -> None:
    words, out = shown(capsys, "ssp_sgd", "--cluster.crash=4", "--seed=3", "--save", "one.npz")
    assert "wrote one.npz" in out
    again, _ = shown(capsys, "--load", "one.npz")
    assert Path("schedule_one.png").is_file()
    assert again.pop("one") == "8 workers"
    assert words.pop("ssp_sgd") == "8 workers, exponential, crash 4"
    assert again == words
    named, _ = shown(capsys, "ssp_sgd", "--load", "one.npz", "--save", "two.npz")
    assert named["ssp_sgd"] == "8 workers"
    assert Path("two.npz").read_bytes() == Path("one.npz").read_bytes()


@pytest.mark.usefixtures("blank")
def test_options_may_come_in_any_order(capsys: pytest.CaptureFixture) -> None:
    arguments = ["--workers", "5"], ["--cluster.straggler", "4"], ["--cluster.scale=[1,1,1,1,2]"], ["async_sgd"]
    found = [shown(capsys, *sum(order, []))[0] for order in (arguments, arguments[::-1])]  # noqa: RUF017
    lines = [{k: v for k, v in words.items() if k != "async_sgd"} for words in found]
    assert lines[0] == lines[1]


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    found: list[str] = []
    listening = True

    def listen(event: str, duration: float, **more: Any) -> None:
        if listening and "backend_compile" in event:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    listening = False


def test_nothing_is_compiled_and_no_problem_is_loaded(
    compilations: list[str], capsys: pytest.CaptureFixture, blank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax.jit(lambda x: x + 1)(np.float32(len(METHODS)))
    assert compilations  # the ear is open
    compilations.clear()
    monkeypatch.setattr(problem, "_make_problem", lambda *a: pytest.fail("loaded a problem"))
    for method in METHODS:
        shown(capsys, method, "--seed=7", "--workers=6", "--seconds=9")
    assert compilations == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ("show: schedule needs an ALGORITHM, or --load FILE",)),
        (["asinc_sgd"], ("algorithm: unknown name 'asinc_sgd'", "did you mean 'async_sgd'")),
        (["delayed_sgd"], ("algorithm: delayed_sgd reads no cluster",)),
        (["k_sync_sgd", "--algorithm.k=9"], ("algorithm.k: ", "k must not exceed workers=8, got 9")),
        (["ssp_sgd", "--algorithm.slack=-1"], ("slack", "got -1")),
        (["async_sgd", "--cluster=exponentil"], ("cluster: unknown name 'exponentil'", "did you mean 'exponential'")),
        (["async_sgd", "--cluster.stragler=4"], ("cluster.stragler", "did you mean 'straggler'")),
        (["async_sgd", "--cluster.straggler=slow"], ("cluster.straggler: must be float, got 'slow'",)),
        (["async_sgd", "--cluster.straggler"], ("show: --cluster.straggler needs a value",)),
        (["async_sgd", "--cluster.crash", "0", "--cluster.crash_workers", "8"], ("cluster.crash", "no update")),
        (["async_sgd", "--cluster=trace"], ("cluster.file: trace needs it",)),
        (["async_sgd", "--topology=ring"], ("topology: async_sgd does not read it",)),
        (["gossip_sgd", "--topology=rign"], ("topology: unknown name 'rign'", "did you mean 'ring'")),
        (["gossip_sgd", "--delay=cluster"], ("delay: gossip_sgd cannot run without barriers",)),
        (["delayed_gossip_sgd", "--delay=3"], ("delay: no clock knows", "got 3; leave it out")),
        (["delayed_gossip_sgd", "--topology=one_peer_ring"], ("delay: cluster needs one fixed graph",)),
        (["ad_psgd", "--workers=1"], ("no neighbour",)),
        (["async_sgd", "--workers=many"], ("workers: must be int, got 'many'",)),
        (["async_sgd", "--workers=0"], ("workers: must be positive, got 0",)),
        (["async_sgd", "--steps=3", "--seconds=3"], ("give exactly one of steps, gradients, seconds",)),
        (["async_sgd", "--seconds=0.001"], ("seconds: no gradient arrives within 0.001 s",)),
        (["allreduce_sgd", "--seconds=0.1"], ("seconds: no step is done within 0.1 s",)),
        (["async_sgd", "--message_bytes=-1"], ("message_bytes: must not be negative, got -1",)),
        (["async_sgd", "--message_bytes=few"], ("message_bytes: must be int, got 'few'",)),
        (["async_sgd", "--worker=3"], ("show: unknown argument '--worker=3'", "did you mean '--workers'")),
        (
            ["async_sgd", "--problem.noise=3"],
            (
                "problem.noise",
                "but layout, parts, micro_batches",
            ),
        ),
        (["async_sgd", "extra"], ("show: unknown argument 'extra'",)),
        (["--load=none.npz"], ("none.npz", "no file")),
        (["--load=broken.npz"], ("broken.npz", "is not a schedule")),
        (["--load=good.npz", "--workers=3"], ("workers: a saved schedule does not read it",)),
        (["--load=good.npz", "--cluster.straggler", "4"], ("cluster.straggler: a saved schedule does not read it",)),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_drawn(
    arguments: list[str], said: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    Path("broken.npz").write_text("nothing")
    schedule.save(line_of("async_sgd", seconds=5.0), "good.npz")
    fails(capsys, ["show", "schedule", *arguments], *said)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--save=no/where.npz", "save: cannot write 'no/where.npz'"),
        ("--results=file/below", "results: cannot write"),
    ],
)
def test_what_cannot_be_written_is_one_line(flag: str, said: str, capsys: pytest.CaptureFixture) -> None:
    Path("file").write_text("nothing")
    fails(capsys, ["show", "schedule", "async_sgd", flag], said, flag.split("=")[0], code=1)


def test_what_cannot_be_shown_names_what_can(capsys: pytest.CaptureFixture) -> None:
    fails(capsys, ["show", "shedule", "async_sgd"], "'shedule'", "did you mean 'schedule'?", "dopt show --help")


def test_a_clock_of_no_cluster_takes_a_second_for_a_step() -> None:
    assert line_of("allreduce_sgd", cluster=None, steps=3).time.max() == 3
    assert (line_of("allreduce_sgd", cluster=None, steps=3).fate == APPLIED).all()


def test_without_updates_there_is_no_schedule() -> None:
    with pytest.raises(InputError, match="no update is made"):
        line_of("k_batch_async_sgd", seconds=1.0, **{"algorithm.k": 1000})


def test_links_that_change_are_waited_for_in_turn() -> None:
    n = 8
    w = wiring.matrix(timetable.asked({"algorithm": "gossip_sgd", "topology": "one_peer_exponential", "workers": n}))
    found = line_of("gossip_sgd", topology="one_peer_exponential", workers=n, steps=6)
    links, applied = mixing.links(w), found.rows(found.applied)
    done, sends = np.zeros((2, 6, n))
    done[applied.batch, applied.worker], sends[applied.batch, applied.worker] = applied.done, applied.sends
    for k in range(6):
        waited = links(k) | np.eye(n, dtype=bool)
        np.testing.assert_array_equal(sends[k], np.where(waited, done[k], 0).max(1))
