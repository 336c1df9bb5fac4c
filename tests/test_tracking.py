"""W&B: what is written there equals the store, and nothing that W&B does reaches the sweep."""

from __future__ import annotations

import http.server
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dopt.sweeps import claims, spec, tracking
from dopt.sweeps.tracking import AXES, NAME, TAG, Tracker, fit, login_status, project_name, run_id, thin
from dopt.sweeps.work import sweep

wandb = pytest.importorskip("wandb")

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef" * 2 + "deadbeef"
BLOCK, HEAD = 32768, 7
FULL, LAST = 1, 4  # a record that is whole, and the last part of one that is cut at a block's end


class Server(http.server.ThreadingHTTPServer):
    """What W&B needs of a server, on this machine. From the first request with `until` in it on, it is `then`."""

    daemon_threads = True

    def __init__(self, until: str = "never", then: str | int = "silent"):
        self.until, self.then, self.asked = until, then, list[str]()
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def runs(self) -> list[str]:
        """Ids of the runs that were made or continued."""
        made = [json.loads(text)["variables"] for text in self.asked if "mutation UpsertBucket" in text]
        return list(dict.fromkeys(one["name"] for one in made if one.get("name")))


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        server = self.server
        dead = server.until == "at once" or any(server.until in before for before in server.asked)
        server.asked.append(text)
        if dead and server.then == "silent":
            time.sleep(100)
        if dead or (server.until == "uploads" and "file_stream" in self.path):
            self.send_error(int(server.then))
        else:
            self.say(self.answer(text))

    def answer(self, text: str) -> dict[str, Any]:
        if "mutation UpsertBucket" in text:
            name = json.loads(text)["variables"].get("name")
            project = {"id": "p", "name": "p", "entity": {"name": "me"}}
            bucket = {"id": name, "name": name, "displayName": name, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        files = {"runID": "b", "uploadHeaders": [], "files": []}
        return {"createRunFiles": files} if "mutation CreateRunFiles" in text else {}

    def say(self, data: dict[str, Any]) -> None:
        raw = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """Makes a server to which W&B is logged in."""

    def start(*how: Any) -> Server:
        wandb.teardown()
        server = Server(*how)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        return server

    return start


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
    assert len(said) == 1
    assert "wandb sync" in said[0]
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
from dopt.sweeps.tracking import Tracker, login_status
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
    monkeypatch.setattr(tracking, "_probe", lambda url: None)
    monkeypatch.setattr(wandb, "init", refuse("online", calls))
    tracker = Tracker("online", group="g", folder=tmp_path, say=said.append)
    tracker.log(*make(runs=3, rows=3))
    tracker.log(*make(runs=3, rows=3))
    assert calls == ["online"] + 6 * ["offline"]
    assert len(files(tmp_path)) == 6
    assert len(said) == 2  # what failed, and how to upload what was written
    assert "\n" not in said[0]
    assert KEY not in said[0]


def test_offline_that_fails_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    said: list[str] = []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "_probe", lambda url: None)
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
    assert len(said) == 2
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
    monkeypatch.setattr(tracking, "_probe", lambda url: None)
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
    assert (tracker.mode, len(said)) == ("offline", 2)
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
tracker = Tracker("auto", group="g", folder=pathlib.Path({str(tmp_path / "w")!r}), say=print)
assert tracker.mode == "online"
tracker.log(*make(runs=3, rows=20))
assert tracker.mode == "offline"
"""
    start = time.monotonic()
    done = python(code, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=KEY, DOPT_TEST=marker)
    assert time.monotonic() - start < 30
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
    assert [len(read(path)["history"]) for path in files(tmp_path / "w")] == [20, 20, 20]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    name = os.uname().nodename.encode()
    hosts = (bytes([len(name)]) + name, b'"' + name + b'"')  # as a field: a short name may lie in random bytes
    offline_runs = [path.read_bytes() for path in files(tmp_path / "w")]
    assert not any(KEY.encode() in text for text in written)
    assert not any(b"an-argument" in text or any(host in text for host in hosts) for text in offline_runs)
    assert not children(marker)


# -- nothing is lost for good ---------------------------------------------------------------------------------------------


def logged(mode: str, folder: Path, said: list[str], runs: int = 3) -> Tracker:
    tracker = Tracker(mode, group="g", folder=folder, project="p", say=said.append)
    tracker.log(*make(runs=runs, rows=3), folder / "marks")
    return tracker


def marks(folder: Path) -> list[tuple[str, str]]:
    """(end of a run's id, mode) for each mark."""
    lines = (folder / "marks").read_text().splitlines() if (folder / "marks").exists() else []
    return [(one["id"][-1], one["mode"]) for one in map(json.loads, lines)]


def test_what_is_logged_is_marked_and_not_logged_again(tmp_path: Path, online: Callable[..., Server]) -> None:
    server = online()
    logged("online", tmp_path, [])
    assert marks(tmp_path) == [("0", "online"), ("1", "online"), ("2", "online")]
    assert len(server.runs()) == 3
    server.asked.clear()
    logged("online", tmp_path, [])
    logged("offline", tmp_path, [])  # what W&B has needs no copy to be sent
    assert (server.asked, files(tmp_path)) == ([], [])
    logged("online", tmp_path, [], runs=4)
    assert server.runs() == [run_id("3".zfill(16), "g")]


def test_another_project_or_server_has_nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marks").write_text("")
    tracker = Tracker("offline", group="g", folder=tmp_path, project="p", say=print)
    tracker._mark(tmp_path / "marks", "a")
    assert tracker.lacks(["a", "b"], tmp_path / "marks") == {"b"}
    for change in ({"project": "q"}, {"group": "h"}):
        other = Tracker("offline", **{"group": "g", "project": "p", **change}, folder=tmp_path, say=print)
        assert other.lacks(["a"], tmp_path / "marks") == {"a"}
    monkeypatch.setenv("WANDB_BASE_URL", "https://own.example")
    assert tracker.lacks(["a"], tmp_path / "marks") == {"a"}


def test_what_fell_back_to_offline_is_logged_online_by_the_next_call(
    tmp_path: Path, online: Callable[..., Server]
) -> None:
    said: list[str] = []
    start = time.monotonic()
    online("at once", 503)
    assert logged("online", tmp_path, said).mode == "offline"
    assert time.monotonic() - start < 15
    assert marks(tmp_path) == [("0", "offline"), ("1", "offline"), ("2", "offline")]
    assert len(said) == 2
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in said[1]
    logged("offline", tmp_path, said)
    logged("online", tmp_path, said)  # where nobody answers yet: what lies here to be sent is not written once more
    assert len(files(tmp_path)) == 3
    server = online()
    logged("online", tmp_path, said)
    assert len(server.runs()) == 3
    assert {run for run, mode in marks(tmp_path) if mode == "online"} == {"0", "1", "2"}


def test_a_server_that_takes_calls_and_is_silent_costs_seconds_in_all(
    tmp_path: Path, online: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PROBE_TIMEOUT", 1.0)
    online("at once")
    start = time.monotonic()
    assert logged("online", tmp_path, []).mode == "offline"
    assert time.monotonic() - start < 10


def test_a_server_that_dies_between_two_runs_leaves_the_first_marked(
    tmp_path: Path, online: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 1.0)
    online("1".zfill(16), 503)  # from the second run on
    assert logged("online", tmp_path, []).mode == "offline"
    assert marks(tmp_path) == [("0", "online"), ("1", "offline"), ("2", "offline")]


def test_an_upload_that_is_refused_is_not_marked_as_online(tmp_path: Path, online: Callable[..., Server]) -> None:
    said: list[str] = []
    online("uploads", 403)
    logged("online", tmp_path, said, runs=1)
    assert marks(tmp_path) == [("0", "offline")]
    assert "403" in said[0]


def test_runs_of_a_killed_service_are_logged_by_the_next_call(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, psutil, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_tracking import logged, marks, tracking
folder, said, done = pathlib.Path({str(tmp_path)!r}), [], []
present = tracking._present
def killing(fields, keep):
    if str(fields["id"]).endswith("1") and not done:
        done.append(True)
        for child in psutil.Process().children(recursive=True):
            child.kill()
    return present(fields, keep)
tracking._present = killing
logged("offline", folder, said)
assert [run for run, _ in marks(folder)] == ["0"], marks(folder)
assert len(said) == 2, said
logged("offline", folder, said)
assert sorted(run for run, _ in marks(folder)) == ["0", "1", "2"]
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_marks_that_cannot_be_written_or_read_cost_a_line_and_no_run(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "marks").mkdir()
    assert logged("offline", tmp_path, said, runs=2).mode == "offline"
    assert len(files(tmp_path)) == 2
    assert sum("marks" in line for line in said) >= 1
    (tmp_path / "torn").write_text('{"id": "a", "mode": "off\n17\n')
    tracker = Tracker("offline", group="g", folder=tmp_path, say=said.append)
    assert tracker.lacks(["a"], tmp_path / "torn") == {"a"}


def test_an_interrupt_leaves_the_runs_before_it_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = tracking._write, list[str]()

    def write(*given: Any) -> None:
        calls.append("run")
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        real(*given)

    monkeypatch.setattr(tracking, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        logged("offline", tmp_path, [])
    assert marks(tmp_path) == [("0", "offline")]


def test_a_sweep_logs_what_an_earlier_call_of_it_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried, ill = tracking._write, list[str](), [True]

    def write(*given: Any) -> None:
        tried.append(given[4]["id"])
        if ill[0] and len(tried) == 2:
            raise RuntimeError("ill")
        real(*given)

    monkeypatch.setattr(tracking, "_write", write)
    fixed = {"algorithm": "gossip_sgd", "workers": 2, "problem": "quadratic", "steps": 2, "learning_rate": 0.1}
    content = {"name": "s", "parameters": spec.grid(fixed, {"seed": [0, 1, 2]})}
    first = sweep(content, results=tmp_path / "s", wandb="offline")
    assert len(tried) == 2
    ill[0] = False
    sweep(content, results=tmp_path / "s", wandb="offline")
    assert tried == [*first.runs["id"][:2], *first.runs["id"][1:]]
    sweep(content, results=tmp_path / "s", wandb="offline")
    assert len(tried) == 4


def test_a_sweep_logs_what_a_dead_host_had_no_time_to_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()
    monkeypatch.setattr(tracking, "_write", lambda *given: tried.append(given[4]["id"]))
    monkeypatch.setattr(claims, "STALE", 0.2)
    fixed = {"algorithm": "gossip_sgd", "workers": 2, "problem": "quadratic", "steps": 2, "learning_rate": 0.1}
    content = {"name": "s", "parameters": spec.grid(fixed, {"seed": [0, 1]})}
    first = sweep(content, results=tmp_path / "s")
    (slab,) = (tmp_path / "s" / "slabs").iterdir()
    said = {"node": "far", "system": "", "pid": 1, "started": None, "since": 1.8e9, "beats": 3}
    (tmp_path / "s" / "locks" / f"{slab.name}.claim").write_text(json.dumps(said))
    sweep(content, results=tmp_path / "s", wandb="offline")
    assert tried == first.runs["id"].tolist()
    assert claims.held(tmp_path / "s" / "locks") == []


# -- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [NAME, TAG])
def test_a_long_name_is_cut_and_stays_distinct(room: int) -> None:
    long = ["x" * room + end for end in ("", "a", "b")]
    assert fit(long[0], room) == long[0]
    assert [len(fit(name, room)) for name in long] == [room] * 3
    assert len({fit(name, room) for name in long}) == 3
    assert fit("\ud800", room).isascii()  # half a character has no place in a message


def test_a_project_has_no_character_that_wandb_refuses() -> None:
    assert project_name("plain one") == "plain one"
    assert not set(project_name("a/b:c")) & set("/\\#?%:")
    assert project_name("a/b") != project_name("a:b")


def test_long_names_of_all_kinds_are_shortened_offline_too(tmp_path: Path) -> None:
    runs, history = make(rows=2)
    long = "n" * 500
    runs = runs.assign(algorithm=long, topology=f"{long}/t.graphml", **{f"algorithm.{long}": 1, f"final.{long}": 2.0})
    history = history.assign(**{long: 1.0})
    said: list[str] = []
    Tracker("offline", group=long, folder=tmp_path, project=long, say=said.append).log(runs, history)
    assert len(said) == 1, said
    wandb.teardown()  # its process writes the last block after `finish` has returned
    (found,) = map(read, files(tmp_path))
    run = found["run"]
    names = [run.display_name, run.run_group, run.project, run.run_id, run.job_type]
    keys = [*found["config"], *found["summary"], *found["history"][0]]
    assert all(0 < len(name) <= NAME for name in [*names, *keys])
    assert max(map(len, keys)) == NAME
    assert all(len(tag) <= TAG for tag in run.tags)
    assert len(set(run.tags)) == 3
