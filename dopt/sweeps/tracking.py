"""Weights & Biases: one W&B run per dopt run, written from the store after a slab is safe.

W&B is a view of the store and never the only copy, so whatever W&B does (no network, bad key, full disk) costs one line
on the terminal and nothing else: online falls back to offline, offline to off. Nothing is lost by it: a mark is kept of
each run that W&B has, and what has none is logged by the next call. `wandb` takes a second to import; it is imported at
the first run that is really logged.

A run's place in W&B: group = the sweep, job_type = the algorithm, tags = algorithm, topology and problem, config = the
flat fields, summary = the final values, and a history of at most 500 rows whose axes (`step`, `gradients`, `time`,
`bytes_sent`) are logged in the same row as the metrics. Its id is the dopt id and a hash of the group: logging a run
again continues the run that is there, and the same run in two sweeps is two W&B runs. Names that W&B has no room for are
cut, and end in a hash of the whole. In the process of a `wandb agent` (which makes one run) the id, group and project are
the agent's.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import importlib.util
import json
import netrc
import os
import re
import shlex
import ssl
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MODES = ("auto", "online", "offline", "off")
AXES = ("step", "gradients", "time", "bytes_sent")
TAGS = ("algorithm", "topology", "problem")
POINTS = 500  # rows of history that a W&B run gets at most
ROOM = 1 << 21  # bytes that must fit on the disk before and after a run; 500 rows of 4 metrics take 0.25 MB
PROBE_TIMEOUT = 4.0  # seconds in which a server must answer anything
INIT_TIMEOUT = 10.0  # seconds
FINISH_TIMEOUT = 20.0  # seconds; W&B's own default is to wait for the upload for ever
NAME, TAG = 128, 64  # characters that W&B has room for
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # the public server's two names: a login at one serves both
HINT = "W&B is off: not logged in (run `wandb login` once, or choose offline)"

# No statistics, argv, host, git, code, package list or terminal output; nothing printed.
LEAN: Mapping[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "label_disable": True,
    "quiet": True,
    "save_code": False,
    "show_errors": False,
    "show_info": False,
    "show_warnings": False,
    "silent": True,
    "symlink": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class Tracker:
    """Logs finished runs to W&B, and never lets W&B stop the sweep.

    Args:
      mode: auto (online when logged in, else off), online, offline or off.
      group: the sweep's name.
      folder: where W&B may keep its files; it makes a folder `wandb` there.
      project: the W&B project.
      say: takes the few lines that a user should see.
    """

    def __init__(
        self, mode: str, *, group: str, folder: Path, project: str = "dopt", say: Callable[[str], None] = _say
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"wandb: must be one of {', '.join(MODES)}; got {mode!r}")
        self.group, self.folder, self.project, self.say = group, Path(folder), project, say
        self.mode = _resolve() if mode == "auto" else mode
        self.told = False  # how to upload what is written offline
        self.answered = False  # the server
        if mode == "auto" and self.mode == "off" and not _asked():
            say(HINT)

    def lacks(self, runs: Iterable[str], marks: Path) -> set[str]:
        """Which of these runs W&B does not have yet, by the marks in a file (see `log`)."""
        return set() if self.mode == "off" else set(runs) - _marked(marks, self._place(), self.mode)

    def log(self, runs: pd.DataFrame, history: pd.DataFrame, marks: Path | None = None) -> None:
        """Makes one W&B run of each row of `runs`, with its rows of `history`; raises nothing that W&B does.

        Args:
          runs: columns `id`, the flat fields of a run, and its summary: `final.*`, `diverged`, `diverged_step`.
          history: columns `id`, the four axes, and the metrics; NaN where a metric was not measured.
          marks: a file with a line for each run that W&B has: in which mode, and where. Those runs are left out, and a line
            is added for each new one as soon as W&B has it. None: all are logged.
        """
        if self.mode == "off" or runs.empty:
            return
        rows = {str(run): part for run, part in history.groupby("id", sort=False)}
        there = {mode: _marked(marks, self._place(), mode) if marks else set() for mode in ("online", "offline")}
        for record in runs.to_dict("records"):
            fields = {str(name): value for name, value in record.items()}
            run = str(fields["id"])
            if self._log_one(fields, rows.get(run, history.iloc[:0]), there) and marks:
                self._mark(marks, run)

    def _log_one(self, fields: Mapping[str, object], history: pd.DataFrame, there: Mapping[str, set[str]]) -> bool:
        """Whether the run was logged: not where it is there already, in the mode that is left when W&B has failed."""
        while self.mode != "off" and fields["id"] not in there[self.mode]:
            try:
                self._check_server()
                _write(self.mode, self.group, self.project, self.folder, fields, list(_rows(history)))
                self._tell()
                return True
            except Exception as error:  # whatever W&B does; KeyboardInterrupt passes
                self._step_down(error)
        return False

    def _check_server(self) -> None:
        """Fails where no server answers: W&B itself would try for minutes."""
        if self.mode == "online" and not self.answered and _login():
            _probe(_url())
            self.answered = True

    def _place(self) -> dict[str, str]:
        return {"host": _host(), "project": self.project, "group": self.group}

    def _mark(self, marks: Path, run: str) -> None:
        try:
            with marks.open("a") as file:
                file.write(json.dumps({"id": run, "mode": self.mode, **self._place()}) + "\n")
        except OSError as error:
            self.say(
                f"W&B: {marks} cannot be written ({error.strerror}), so the next call will log the same runs again"
            )

    def _tell(self) -> None:
        """Once, where offline runs lie and how they get to the server."""
        if self.mode == "offline" and not self.told:
            self.told = True
            runs = f"{shlex.quote(str(self.folder / 'wandb'))}/offline-run-*"
            self.say(f"W&B: offline runs are in {self.folder / 'wandb'}; upload them with `wandb sync {runs}`")

    def _step_down(self, error: Exception) -> None:
        """Online -> offline -> off, so that each failure is told once; without the package there is no offline."""
        _release()
        self.mode = "offline" if self.mode == "online" and not isinstance(error, ImportError) else "off"
        then = f"writing offline to {self.folder}" if self.mode == "offline" else "off for the rest of this sweep"
        self.say(f"W&B failed ({_line(error)}); {then}; the results are safe, and the next call logs what is missing")


def online(marks: Path) -> str:
    """The lines of a file of marks (see `Tracker.log`) for runs that W&B has online; those offline lie on a disk of their own."""
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in marks.read_text().splitlines():
            with contextlib.suppress(ValueError, AttributeError):  # a line that a kill cut off
                if json.loads(line).get("mode") == "online":
                    found.append(f"{line}\n")
    return "".join(found)


def _marked(marks: Path, place: Mapping[str, str], mode: str) -> set[str]:
    """The runs that W&B has at that place: in this mode, or online, which is where offline runs go."""
    found = set()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in marks.read_text().splitlines():
            with contextlib.suppress(ValueError, AttributeError):  # a line that a kill cut off
                said = json.loads(line)
                if said.get("mode") in (mode, "online") and place.items() <= said.items():
                    found.add(str(said["id"]))
    return found


def _probe(url: str) -> None:
    """Fails unless the server says something in time; in a thread, since looking up a name cannot be bounded."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is not the address of a server")
    found: list[Exception | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=PROBE_TIMEOUT):  # noqa: S310 (checked above)
                found.append(None)
        except urllib.error.HTTPError as error:  # an answer, unless it is that nobody is behind
            error.close()
            found.append(error if error.code in (500, 502, 503, 504) else None)
        except Exception as error:
            trust = isinstance(getattr(error, "reason", None), ssl.SSLError)  # W&B may know other certificates
            found.append(None if trust else error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT + 1)
    if not found:
        raise TimeoutError(f"{url} does not answer")
    if found[0] is not None:
        raise ConnectionError(f"{url} does not answer: {found[0]}")


def thin(rows: int, points: int = POINTS) -> np.ndarray:
    """At most `points` indices spread evenly over range(rows), the first and the last among them."""
    return np.unique(np.linspace(0, rows - 1, min(rows, points)).round().astype(np.int64))


def run_id(run: str, group: str) -> str:
    """The W&B id of a dopt run in a sweep."""
    return fit(f"{run}-{_hash(group)}")


def fit(text: str, room: int = NAME) -> str:
    """The text, if W&B has room for it; else its beginning and a hash of it all, so that different ones stay so."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= room else f"{whole[: room - 9]}-{_hash(text)}"


def project_name(name: str) -> str:
    """A project's name without the characters that W&B refuses in it."""
    plain = re.sub(r"[/\\#?%:]", "-", name)
    return fit(plain if plain == name else f"{plain}-{_hash(name)}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def login_status() -> str:
    """One line for `dopt doctor`: whether W&B would be online, and where the login was found; never the key."""
    if importlib.util.find_spec("wandb") is None:
        return "wandb: not installed"
    source = _login()
    found = f"logged in to {_host()} by {source}" if source else "not logged in (`wandb login`)"
    asked = _asked()
    return f"wandb: {found}" + (f"; W&B's own setting says {asked}" if asked else "")


def _write(
    mode: str, group: str, project: str, folder: Path, fields: Mapping[str, object], rows: list[dict[str, Any]]
) -> None:
    _need_room(folder)
    if mode == "online" and not _login():
        raise RuntimeError("not logged in")  # W&B would ask for a key on the terminal
    wandb = _import()
    settings = _settings(wandb)
    run = wandb.init(
        mode=mode,
        dir=str(folder),
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=settings,
        **_identity(fields, group, project),
    )
    try:
        for axis in AXES:
            run.define_metric(axis, hidden=True)
        run.define_metric("*", step_metric="step")
        for row in rows[run.starting_step :]:  # a run that is continued has its first rows already
            run.log(row)
        run.summary.update(_present(fields, _is_summary))
    finally:
        run.finish()
    # W&B writes in a process of its own, after finish returns, and does not say when the disk was full.
    _need_room(folder)
    _check_upload(run)


def _check_upload(run: Any) -> None:
    """Fails where W&B gave an upload up: it says so in its log alone."""
    for line in _text(Path(str(run.settings.log_internal))).splitlines():
        if '"filestream: fatal error' in line:
            raise RuntimeError(" ".join(line.partition("fatal error: ")[2].split("\\n")[0].split()))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _identity(fields: Mapping[str, object], group: str, project: str) -> dict[str, Any]:
    tags = list(dict.fromkeys(fit(str(tag), TAG) for tag in _present(fields, TAGS.__contains__).values() if tag))
    about = {
        "name": fit(" ".join([*tags, str(fields["id"])[:6]])),
        "job_type": fit(str(fields.get("algorithm", "run"))),
        "tags": tags,
        "config": _present(fields, lambda name: not _is_summary(name)),
    }
    if os.environ.get("WANDB_SWEEP_ID"):
        return about
    place = {"group": fit(group), "project": project_name(project)}
    return {**about, "id": run_id(str(fields["id"]), group), **place}


def _is_summary(name: str) -> bool:
    return name.startswith("final.") or name in ("diverged", "diverged_step", "stalled_step")


def _present(fields: Mapping[str, object], keep: Callable[[str], bool]) -> dict[str, Any]:
    return {fit(name): value for name, value in fields.items() if keep(name) and not _is_missing(value)}


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _rows(history: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows to log. NaN is left out: W&B would draw an empty chart for a metric that was never measured."""
    for record in history.drop(columns="id").iloc[thin(len(history))].to_dict("records"):
        yield {fit(str(name)): value for name, value in record.items() if not _is_missing(value)}


def _import() -> Any:
    # Read at import: no crash reports to a third party (they would carry paths and need a network).
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def _release() -> None:
    """Ends W&B's process: it holds on to the id of a run that failed, and would refuse it to the run offline."""
    if "wandb" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["wandb"].teardown()


def _settings(wandb: Any) -> Any:
    """The lean settings, as far as this W&B knows them (those with x_ come and go)."""
    wanted = {
        **LEAN,
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
        "finish_timeout_raises": True,
    }
    known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
    wandb.setup(settings=wandb.Settings(silent=True, quiet=True))  # the login speaks before init's settings hold
    return wandb.Settings(**known)


def _need_room(folder: Path) -> None:
    """Fails where W&B would write to the temporary folder instead (no permission) or write half a file (no room)."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(ROOM))


def _resolve() -> str:
    asked = _asked()
    if asked:
        return asked
    return "online" if _login() and importlib.util.find_spec("wandb") else "off"


def _asked() -> str:
    """What the user told W&B itself (WANDB_MODE, `wandb offline`), which `auto` obeys; "" for nothing."""
    asked = os.environ.get("WANDB_MODE") or _stored("mode")
    return {"offline": "offline", "dryrun": "offline", "disabled": "off"}.get(asked, "")


def _login() -> str:
    """Where W&B would find its key, looked up as W&B does but without importing it; "" for nowhere."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(name):
            return name
    if _in_netrc(_host()):
        return str(_netrc_file())
    return "W&B's settings file" if _stored("api_key") else ""


def _url() -> str:
    return (os.environ.get("WANDB_BASE_URL") or _stored("base_url") or f"https://{HOSTS[0]}").rstrip("/")


def _host() -> str:
    return urlsplit(_url()).netloc or HOSTS[0]


def _netrc_file() -> Path:
    if os.environ.get("NETRC"):
        return Path(os.environ["NETRC"]).expanduser()
    unix, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not unix.exists() else unix


def _in_netrc(host: str) -> bool:
    try:
        entries = netrc.netrc(_netrc_file())
    except (OSError, netrc.NetrcParseError):
        return False
    found = [entries.authenticators(name) for name in (HOSTS if host in HOSTS else (host,))]
    return any(entry and entry[2] for entry in found)


def _stored(name: str) -> str:
    """An entry of W&B's settings files: the user's, then that of the working directory, which overrides it."""
    files = configparser.ConfigParser(interpolation=None)
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    try:
        files.read([folder / "settings", Path("wandb") / "settings"])
    except (OSError, configparser.Error, UnicodeDecodeError):
        return ""
    return files.get("default", name, fallback="")


def _line(error: Exception) -> str:
    """An error as one short line without the key."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "***") if key else text)[:200]
