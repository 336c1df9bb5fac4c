"""What is seen of a sweep while it goes on: on a real pseudo-terminal, in lines, and from another process."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import pytest
import yaml

import dopt
from dopt import InputError
from dopt.cli import main
from dopt.devices import memory
from dopt.sweeps import contents, live
from dopt.sweeps.best import POINTS
from dopt.sweeps.helper import Told
from dopt.sweeps.jobs import Team
from dopt.sweeps.live import LEVELS, Lines, PlainConsole, Screen, Tally, sparkline
from dopt.sweeps.results import Results
from dopt.sweeps.show import Best, Part, Show
from dopt.sweeps.status import Watch

METRIC = "suboptimality"
CONTENT: dict[str, Any] = {
    "name": "seen",
    "metric": {"name": METRIC},
    "parameters": {
        "algorithm": {"values": ["gossip_sgd", "allreduce_sgd"]},
        "workers": {"value": 4},
        "problem": {"value": "quadratic"},
        "problem.dim": {"value": 2},
        "learning_rate": {"values": [0.01, 0.1]},
        "steps": {"value": 40},
        "seed": {"values": [0, 1]},
    },
}


class Seen(NamedTuple):
    """What a sweep wrote on a pseudo-terminal, and what it gave."""

    text: str
    results: Results


def read(master: int, found: list[bytes]) -> None:
    """Read a pseudo-terminal to its end, which Linux tells as an error."""
    try:
        while part := os.read(master, 2**16):
            found.append(part)
    except OSError:
        pass


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    master, slave = pty.openpty()
    found: list[bytes] = []
    reader = threading.Thread(target=read, args=(master, found))
    reader.start()
    with os.fdopen(slave, "w") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "FRAMES", 20.0)
        patch.setenv("TERM", "xterm")
        out = PlainConsole(file=terminal, width=120)
        assert out.is_terminal
        show = live.display(out)
        assert isinstance(show, Screen)
        results = dopt.sweep(CONTENT, results=tmp_path_factory.mktemp("seen") / "it", show=show)
    reader.join()
    os.close(master)
    return Seen(b"".join(found).decode(), results)


def lines_of(seen: Seen) -> list[str]:
    """All lines that were ever on the screen, without what steers it."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.text))


# -- pieces -----------------------------------------------------------------------------------------------------------


def test_a_sparkline_falls_where_its_curve_falls_and_is_straight_where_it_is_geometric() -> None:
    assert sparkline([10.0**-k for k in range(8)]) == LEVELS[::-1]
    assert sparkline([3.0, -1.0, 7.0])[2] == LEVELS[-1]
    assert sparkline([1.0, math.nan, 0.1, math.inf]) == f"{LEVELS[-1]} {LEVELS[0]} "
    assert sparkline([2.0, 2.0]) == LEVELS[0] * 2
    assert sparkline([]) == ""
    assert sparkline([math.nan]) == " "


def test_groups_are_called_by_what_tells_them_apart() -> None:
    keys = [{"algorithm": "a", "workers": 4}, {"algorithm": "a", "workers": 8}, {"algorithm": "b", "workers": 8}]
    assert contents.labels(keys) == ["a workers=4", "a workers=8", "b"]
    assert contents.labels(keys[:1]) == ["a"]
    assert contents.labels([{"algorithm": "a", "other": 1}, {"algorithm": "a", "other": 2}]) == ["a", "a (2)"]


# -- a terminal -------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_that_and_for_how_long_it_compiles(seen: Seen) -> None:
    lines = lines_of(seen)
    assert any(re.match(r"compiling gossip_sgd \(1 of 2\), for [\d.]+ m?s, .* of memory free", line) for line in lines)
    out = io.StringIO()
    show = Screen(PlainConsole(file=out))
    for _ in range(2):
        show.compiled(1.5)
    show.start(1, 1)
    assert out.getvalue() == "compiled 2 programs in 3 s\n"


def test_a_terminal_shows_each_group_with_its_best_run(seen: Seen) -> None:
    runs = seen.results.runs
    assert any(line.startswith("8 of 8 runs") for line in lines_of(seen))
    for name, group in runs.groupby("algorithm"):
        best = group[f"final.{METRIC}"].min()
        rate = group.loc[group[f"final.{METRIC}"].idxmin(), "learning_rate"]
        (last,) = [line for line in lines_of(seen) if line.startswith(f"{name} ")][-1:]
        assert re.search(rf"{name} +4/4 .*[{LEVELS}]{{{POINTS}}} +{METRIC} {best:.4g}, learning_rate={rate:g}", last)


def test_the_cursor_is_given_back(seen: Seen) -> None:
    assert seen.text.count("\x1b[?25l") == seen.text.count("\x1b[?25h") == 1


def test_another_process_sees_the_same_groups_and_the_same_best_runs(seen: Seen) -> None:
    watch = Watch(seen.results.folder)
    assert [row.best for row in watch.look().groups] == [None, None]
    watch.judge(99)
    for row in watch.look().groups:
        group = seen.results.runs[seen.results.runs["algorithm"] == row.label]
        assert (row.done, row.total) == (len(group), len(group))
        assert row.best is not None
        assert row.best.score == group[f"final.{METRIC}"].min()


def test_a_console_that_cannot_be_drawn_on_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(live.display(PlainConsole(file=io.StringIO())), Lines)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(live.display(PlainConsole(file=io.StringIO(), force_terminal=True)), Lines)


def test_a_notebook_gets_a_screen_where_it_can_show_one(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = PlainConsole(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(live, "console", lambda stderr: notebook)
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    assert isinstance(live.chosen("auto"), Lines)
    monkeypatch.setattr(live, "find_spec", lambda name: name == "ipywidgets")
    assert isinstance(live.chosen("auto"), Screen)


# -- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_is_said_where_something_was_done_since_the_last_one() -> None:
    out = io.StringIO()
    show = Lines(PlainConsole(file=out, width=120), period=0.05)
    show.compiling("gossip_sgd (1 of 1)")
    time.sleep(0.2)  # four periods, in which nothing new happens
    show.compiled(0.2)
    show.start(20, 0)
    show.done("a", 5, 1)
    time.sleep(0.2)
    show.stop()
    first, second = out.getvalue().splitlines()
    assert re.fullmatch(r"compiling gossip_sgd \(1 of 1\), for 0\.\d+ s", first)
    assert re.fullmatch(r"5 of 20 runs, [\d.e+]+ runs/s, .* left, 1 diverged", second)


def test_a_short_sweep_says_no_line() -> None:
    out = io.StringIO()
    show = Lines(PlainConsole(file=out))
    show.start(2, 0)
    show.done("a", 2, 0)
    begin = time.monotonic()
    show.stop()
    assert time.monotonic() - begin < 1
    assert out.getvalue() == ""


def test_python_chooses_what_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert type(live.chosen(False)) is Show
    assert type(live.chosen("auto")) is type(live.chosen(True)) is Lines
    for wrong in ("bar", 3, None):
        with pytest.raises(InputError, match='progress: must be "auto", True or False, got'):
            live.chosen(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="progress"):
        dopt.sweep(CONTENT, progress="yes")


def test_quiet_prints_the_result_alone(tmp_path: Path, capsys: pytest.CaptureFixture, seen: Seen) -> None:
    file = tmp_path / "seen.yaml"
    file.write_text(yaml.safe_dump(CONTENT))
    words = ["sweep", str(file), "--results", str(seen.results.folder)]  # which is finished
    assert main(words) == 0
    assert "W&B is off" in capsys.readouterr().err
    assert main([*words, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "seen: 8 runs" in out
    assert err == ""


# -- what is told -----------------------------------------------------------------------------------------------------


def test_of_a_group_the_best_run_of_all_its_slabs_is_shown() -> None:
    show = Tally()
    show.plan([Part("one", {"a": 3, "b": 2}), Part("two", {"c": 1})], {"b"})
    show.start(6, 2)
    show.best("a", Best(2.0, "worse", ()))
    show.best("b", Best(1.0, "better", ()))
    show.best("a", Best(3.0, "worst", ()))
    show.done("c", 1, 1)
    assert [(row.label, row.done, row.total, row.best and row.best.label) for row in show.groups()] == [
        ("one", 2, 5, "better"),
        ("two", 1, 1, None),
    ]
    assert (show.new, show.diverged) == (1, 1)


def test_a_helper_tells_of_its_best_run_through_its_pipe() -> None:
    pipe, told, best = io.BytesIO(), list[Any](), Best(0.25, "loss 0.25", [1.0, math.nan, 0.25])
    Told(pipe).best("a", best)
    show = SimpleNamespace(best=lambda *words: told.append(words))
    team = Team(show=show)  # type: ignore[arg-type]
    word, *rest = json.loads(pipe.getvalue())
    team._hear(SimpleNamespace(slab="a"), word, rest)  # type: ignore[arg-type]
    ((slab, found),) = told
    assert (slab, found.score, found.label) == ("a", best.score, best.label)
    assert sparkline(found.curve) == sparkline(best.curve)


def test_what_accelerators_hold_is_added_up_and_a_cpu_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.held() is None
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_in_use": 3, "bytes_limit": 10})
    blind = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu, gpu, blind])
    assert memory.held() == (6, 20)
