"""W&B: what is written there equals the store, and nothing that W&B does reaches the sweep."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dopt.sweep import tracking
from dopt.sweep.tracking import AXES, Tracker, login_status, run_id, thin

wandb = pytest.importorskip("wandb")

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef" * 2 + "deadbeef"
BLOCK, HEAD = 32768, 7
FULL, LAST = 1, 4  # a record that is whole, and the last part of one that is cut at a block's end


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    yield
    wandb.teardown()  # it reads the environment once per start


def make(runs: int = 1, rows: int = 51) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A slab of runs as the store hands them out: ragged options, a metric measured now and then, an overflow."""
    ids = [f"{i:016x}" for i in range(runs)]
    k = np.arange(rows)
    table = pd.DataFrame({"id": ids, "algorithm": "dsgd", "topology": "ring", "problem": "quadratic", "workers": 8})
    table["delay.max"] = [3.0] + [np.nan] * (runs - 1)
    table = table.assign(**{"final.loss": 0.5, "final.gap": np.nan, "diverged": False, "diverged_step": np.nan})
    parts = [
        pd.DataFrame(
            {
                "id": run,
                "step": k * 10,
                "gradients": k * 80,
                "time": k * 0.1 + i,
                "bytes_sent": k * 1e9 + 1,
                "loss": np.exp(-k / 7.0).astype(np.float32),
                "consensus_distance": np.where(k % 5 == 0, 1 / (k + 3.0), np.nan),
                "accuracy": np.nan,
                "gap": np.where(k == 2, np.inf, 1.0),
            }
        )
        for i, run in enumerate(ids)
    ]
    return table, pd.concat(parts, ignore_index=True)


def payloads(raw: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format after a header of 7 bytes."""
    assert raw[:4] == b":W&B"
    at, record = HEAD, b""
    while at + HEAD <= len(raw):
        if BLOCK - at % BLOCK < HEAD:  # too little left in this block for a header
            at += BLOCK - at % BLOCK
            continue
        checksum, size, kind = struct.unpack_from("<IHB", raw, at)
        part = raw[at + HEAD : at + HEAD + size]
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        at, record = at + HEAD + size, record + part
        if kind in (FULL, LAST):
            yield record
            record = b""
    assert record == b""


def items(part: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in part}


def read(path: Path) -> dict[str, Any]:
    """An offline run: its `run` record, config, axes, summary and history."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"metrics": {}, "summary": {}, "history": [], "kinds": []}
    for raw in payloads(path.read_bytes()):
        record: Any = wandb_internal_pb2.__dict__["Record"].FromString(raw)
        kind = record.WhichOneof("record_type")
        found["kinds"].append(kind)
        if kind == "run":
            found["run"], found["config"] = record.run, items(record.run.config.update)
        elif kind == "metric":
            found["metrics"][record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "summary":
            found["summary"].update(items(record.summary.update))
        elif kind == "history":
            found["history"].append(items(record.history.item))
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.name)


def offline(folder: Path, runs: pd.DataFrame, history: pd.DataFrame) -> list[dict[str, Any]]:
    said: list[str] = []
    Tracker("offline", group="the sweep", folder=folder, say=said.append).log(runs, history)
    assert said == []
    wandb.teardown()  # its process writes the last block after `finish` has returned
    return [read(path) for path in files(folder)]


def table_of(found: dict[str, Any], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(found["history"]).reindex(columns=columns).astype(float)


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    here = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-c", code, "--an-argument=of-mine"]
    return subprocess.run(command, env=here, capture_output=True, text=True, timeout=50)


def children(marker: str) -> list[str]:
    """The W&B processes that were started with `marker` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in found if "wandb" in command]


def test_an_offline_file_equals_the_store(tmp_path: Path) -> None:
    runs, history = make(runs=3, rows=51)
    columns = [str(name) for name in history if name != "id"]
    found = offline(tmp_path, runs, history)
    assert len(found) == 3
    for run, one in zip(runs["id"], found, strict=True):
        stored = history[history["id"] == run].drop(columns="id").reset_index(drop=True).astype(float)
        pd.testing.assert_frame_equal(table_of(one, columns), stored, check_exact=True)
        assert one["kinds"][-1] == "exit"


def test_a_row_holds_its_axes_and_only_what_was_measured(tmp_path: Path) -> None:
    (found,) = offline(tmp_path, *make(rows=6))
    for k, row in enumerate(found["history"]):
        assert set(AXES) <= set(row)
        assert ("consensus_distance" in row) == (k % 5 == 0)
        assert "accuracy" not in row


def test_a_run_that_spans_many_blocks_is_read_back(tmp_path: Path) -> None:
    runs, history = make(rows=400)
    (found,) = offline(tmp_path, runs, history)
    assert files(tmp_path)[0].stat().st_size > 3 * BLOCK
    np.testing.assert_array_equal(table_of(found, ["loss"])["loss"], history["loss"].astype(float))


def test_the_axes_are_defined_and_step_is_the_default(tmp_path: Path) -> None:
    (found,) = offline(tmp_path, *make(rows=3))
    assert set(found["metrics"]) == {*AXES, "*"}
    assert found["metrics"]["*"].step_metric == "step"
    assert all(found["metrics"][axis].options.hidden for axis in AXES)


def test_a_run_is_described_in_full(tmp_path: Path) -> None:
    runs, history = make(runs=2, rows=3)
    first, second = offline(tmp_path, runs, history)
    assert (first["run"].run_group, first["run"].job_type, first["run"].project) == ("the sweep", "dsgd", "dopt")
    assert list(first["run"].tags) == ["dsgd", "ring", "quadratic"]
    assert first["run"].run_id == run_id("0" * 16, "the sweep")
    config = {"id": "0" * 16, "algorithm": "dsgd", "topology": "ring", "problem": "quadratic", "workers": 8}
    assert {k: v for k, v in first["config"].items() if k != "_wandb"} == {**config, "delay.max": 3}
    assert "delay.max" not in second["config"]
    assert first["summary"]["final.loss"] == 0.5
    assert first["summary"]["diverged"] is False
    assert not {"final.gap", "diverged_step"} & set(first["summary"])


def test_ids_are_deterministic_and_differ_between_sweeps() -> None:
    assert run_id("ab" * 8, "one") == run_id("ab" * 8, "one")
    assert run_id("ab" * 8, "one") != run_id("ab" * 8, "two")
    assert len(run_id("ab" * 8, "a / very?long#" * 50)) <= 64


@pytest.mark.parametrize("rows", [0, 1, 2, 499, 500, 501, 1000, 12345])
def test_thinning_keeps_the_first_and_the_last_of_at_most_500(rows: int) -> None:
    kept = thin(rows)
    assert len(kept) == min(rows, 500)
    assert (np.diff(kept) > 0).all()
    assert rows == 0 or (kept[0] == 0 and kept[-1] == rows - 1)


def test_a_long_history_is_thinned(tmp_path: Path) -> None:
    runs, history = make(rows=1203)
    (found,) = offline(tmp_path, runs, history)
    steps = table_of(found, ["step"])["step"]
    assert len(steps) == 500
    assert (steps.iloc[0], steps.iloc[-1]) == (0, 12020)


def test_a_run_without_history_is_a_run(tmp_path: Path) -> None:
    runs, history = make(rows=3)
    (found,) = offline(tmp_path, runs, history.iloc[:0])
    assert found["history"] == []
    assert found["summary"]["final.loss"] == 0.5


def test_an_agent_keeps_its_own_id_and_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "agents-own")
    (found,) = offline(tmp_path, *make(rows=3))
    assert (found["run"].run_id, found["run"].run_group) == ("agents-own", "")
    assert found["run"].job_type == "dsgd"


def test_auto_without_login_is_off_says_so_once_and_costs_no_import(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib, pandas as pd
from dopt.sweep.tracking import Tracker, login_status
for mode in ("auto", "off"):
    tracker = Tracker(mode, group="g", folder=pathlib.Path({str(tmp_path)!r}))
    tracker.log(pd.DataFrame({{"id": ["a"]}}), pd.DataFrame({{"id": []}}))
    assert tracker.mode == "off"
print(login_status(), "wandb" in sys.modules)
"""
    done = python(code)
    assert done.stdout.strip() == "wandb: not logged in (`wandb login`) False"
    assert done.stderr.splitlines() == [tracking.HINT]


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ("key", "online"),
        ("netrc", "online"),
        ("netrc elsewhere", "off"),
        ("settings", "online"),
        ("wandb offline", "offline"),
    ],
)
def test_auto_follows_the_login_and_never_shows_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, mode: str
) -> None:
    host = "other.example" if "elsewhere" in how else "api.wandb.ai"
    if how == "key":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    elif "netrc" in how:
        (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    else:
        (tmp_path / "config").mkdir()
        entry = f"api_key = {KEY}" if how == "settings" else "mode = offline"
        (tmp_path / "config" / "settings").write_text(f"[default]\n{entry}\n")
    assert Tracker("auto", group="g", folder=tmp_path, say=print).mode == mode
    assert ("not logged in" in login_status()) == (mode != "online")
    assert KEY not in login_status()


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto, online, offline, off; got 'maybe'"):
        Tracker("maybe", group="g", folder=tmp_path)


def refuse(modes: str, calls: list[str]) -> Callable[..., Any]:
    real = wandb.init

    def init(*, mode: str, **options: Any) -> Any:
        calls.append(mode)
        if mode in modes.split():
            raise RuntimeError(f"W&B\nis ill, {KEY}")
        return real(mode=mode, **options)

    return init


def test_online_that_fails_falls_back_to_offline_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    said: list[str] = []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", refuse("online", calls))
    tracker = Tracker("online", group="g", folder=tmp_path, say=said.append)
    tracker.log(*make(runs=3, rows=3))
    tracker.log(*make(runs=3, rows=3))
    assert calls == ["online"] + 6 * ["offline"]
    assert len(files(tmp_path)) == 6
    assert len(said) == 1
    assert "\n" not in said[0]
    assert KEY not in said[0]


def test_offline_that_fails_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    said: list[str] = []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", refuse("online offline", calls))
    tracker = Tracker("online", group="g", folder=tmp_path, say=said.append)
    tracker.log(*make(runs=3, rows=3))
    assert (calls, tracker.mode, len(said)) == (["online", "offline"], "off", 2)


def test_an_interrupt_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(KeyboardInterrupt):
        Tracker("offline", group="g", folder=tmp_path).log(*make(rows=3))


def test_online_without_a_login_never_asks_for_a_key(tmp_path: Path) -> None:
    said: list[str] = []
    Tracker("online", group="g", folder=tmp_path, say=said.append).log(*make(rows=3))
    assert len(files(tmp_path)) == 1
    assert len(said) == 1
    assert "not logged in" in said[0]


def test_a_folder_that_cannot_be_written_turns_it_off(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("")
    tracker = Tracker("offline", group="g", folder=tmp_path / "file", say=said.append)
    tracker.log(*make(runs=2, rows=3))
    assert (tracker.mode, len(said)) == ("off", 1)


def test_a_full_disk_turns_it_off(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = f"""
import resource, pathlib, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_tracking import Tracker, make
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
tracker = Tracker("offline", group="g", folder=pathlib.Path({str(tmp_path / "w")!r}), say=print)
tracker.log(*make(runs=2, rows=200))
assert tracker.mode == "off"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, done.stdout
    assert done.stderr == ""


def test_a_disk_that_fills_up_while_writing_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    answers = [None, OSError(28, "No space left on device")]  # before the run, and after it

    def probe(_: Path) -> None:
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(tracking, "_need_room", probe)
    tracker = Tracker("offline", group="g", folder=tmp_path, say=said.append)
    tracker.log(*make(runs=2, rows=3))
    assert (tracker.mode, len(said)) == ("off", 1)


def test_an_upload_that_never_ends_is_written_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = wandb.init
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said: list[str] = []

    def init(*, mode: str, **options: Any) -> Any:
        run = real(**{**options, "mode": "offline", "resume": None})
        if mode == "online":
            finish = run.finish

            def stuck() -> None:
                finish()
                raise TimeoutError("upload")

            run.finish = stuck
        return run

    monkeypatch.setattr(wandb, "init", init)
    tracker = Tracker("online", group="g", folder=tmp_path, say=said.append)
    tracker.log(*make(runs=2, rows=3))
    assert (tracker.mode, len(said)) == ("offline", 1)
    assert len(files(tmp_path)) == 3


def test_a_run_that_is_continued_gets_only_the_rows_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb.Run, "starting_step", 2)
    (found,) = offline(tmp_path, *make(rows=6))
    assert [row["step"] for row in found["history"]] == [20, 30, 40, 50]


def test_every_lean_setting_is_one_that_this_wandb_has() -> None:
    assert set(tracking.LEAN) <= set(wandb.Settings.model_fields)


def test_no_network_falls_back_within_bounded_time_without_secrets_noise_or_left_overs(tmp_path: Path) -> None:
    marker = f"mark-{os.getpid()}-{time.time_ns()}"
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_tracking import Tracker, make, tracking
tracking.INIT_TIMEOUT = 10.0
tracker = Tracker("auto", group="g", folder=pathlib.Path({str(tmp_path / "w")!r}), say=print)
assert tracker.mode == "online"
tracker.log(*make(runs=3, rows=20))
assert tracker.mode == "offline"
"""
    start = time.monotonic()
    done = python(code, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=KEY, DOPT_TEST=marker)
    assert time.monotonic() - start < 120
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert [len(read(path)["history"]) for path in files(tmp_path / "w")] == [20, 20, 20]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    name = os.uname().nodename.encode()
    hosts = (bytes([len(name)]) + name, b'"' + name + b'"')  # as a field: a short name may lie in random bytes
    offline_runs = [path.read_bytes() for path in files(tmp_path / "w")]
    assert not any(KEY.encode() in text for text in written)
    assert not any(b"an-argument" in text or any(host in text for host in hosts) for text in offline_runs)
    assert not children(marker)
