"""Weights & Biases: one W&B run per dopt run, written from the store after a slab is safe.

W&B is a view of the store and never the only copy, so whatever W&B does (no network, bad key, full disk) costs one line
on the terminal and nothing else: online falls back to offline, offline to off. `wandb` takes a second to import; it is
imported at the first run that is really logged.

A run's place in W&B: group = the sweep, job_type = the algorithm, tags = algorithm, topology and problem, config = the
flat fields, summary = the final values, and a history of at most 500 rows whose axes (`step`, `gradients`, `time`,
`bytes_sent`) are logged in the same row as the metrics. Its id is the dopt id and a hash of the group: logging a run
again continues the run that is there, and the same run in two sweeps is two W&B runs. In the process of a `wandb agent`
(which makes one run) the id, group and project are the agent's.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import importlib.util
import netrc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

MODES = ("auto", "online", "offline", "off")
AXES = ("step", "gradients", "time", "bytes_sent")
TAGS = ("algorithm", "topology", "problem")
POINTS = 500  # rows of history that a W&B run gets at most
ROOM = 1 << 21  # bytes that must fit on the disk before and after a run; 500 rows of 4 metrics take 0.25 MB
INIT_TIMEOUT = 20.0  # seconds
FINISH_TIMEOUT = 60.0  # seconds; W&B's own default is to wait for the upload for ever
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # the public server's two names: a login at one serves both
HINT = "W&B is off: not logged in (`wandb login` once, or ask for offline)"

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
        if mode == "auto" and self.mode == "off" and not _asked():
            say(HINT)

    def log(self, runs: pd.DataFrame, history: pd.DataFrame) -> None:
        """Makes one W&B run of each row of `runs`, with its rows of `history`; raises nothing that W&B does.

        Args:
          runs: columns `id`, the flat fields of a run, and its summary: `final.*`, `diverged`, `diverged_step`.
          history: columns `id`, the four axes, and the metrics; NaN where a metric was not measured.
        """
        if self.mode == "off" or runs.empty:
            return
        rows = {str(run): part for run, part in history.groupby("id", sort=False)}
        for record in runs.to_dict("records"):
            fields = {str(name): value for name, value in record.items()}
            self._log_one(fields, list(_rows(rows.get(str(fields["id"]), history.iloc[:0]))))

    def _log_one(self, fields: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        while self.mode != "off":
            try:
                _write(self.mode, self.group, self.project, self.folder, fields, rows)
                return
            except Exception as error:  # whatever W&B does; KeyboardInterrupt passes
                self._step_down(error)

    def _step_down(self, error: Exception) -> None:
        """Online -> offline -> off, so that each failure is told once; without the package there is no offline."""
        _release()
        self.mode = "offline" if self.mode == "online" and not isinstance(error, ImportError) else "off"
        then = f"writing offline to {self.folder}" if self.mode == "offline" else "off for the rest of this sweep"
        self.say(f"W&B failed ({_line(error)}); {then}; the results are not touched")


def thin(rows: int, points: int = POINTS) -> np.ndarray:
    """At most `points` indices spread evenly over range(rows), the first and the last among them."""
    return np.unique(np.linspace(0, rows - 1, min(rows, points)).round().astype(np.int64))


def run_id(run: str, group: str) -> str:
    """The W&B id of a dopt run in a sweep."""
    return f"{run}-{hashlib.sha256(group.encode()).hexdigest()[:8]}"


def login_status() -> str:
    """One line for `dopt doctor`: whether W&B would be online, and where the login was found; never the key."""
    if importlib.util.find_spec("wandb") is None:
        return "wandb: not installed"
    source = _login()
    found = f"logged in to {_host()} by {source}" if source else "not logged in (`wandb login`)"
    asked = _asked()
    return f"wandb: {found}" + (f"; W&B's own setting says {asked}" if asked else "")


def _write(
    mode: str, group: str, project: str, folder: Path, fields: Mapping[str, Any], rows: list[dict[str, Any]]
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


def _identity(fields: Mapping[str, Any], group: str, project: str) -> dict[str, Any]:
    tags = list(dict.fromkeys(str(tag)[:64] for tag in _present(fields, TAGS.__contains__).values() if tag))
    about = {
        "name": " ".join([*tags, str(fields["id"])[:6]]),
        "job_type": str(fields.get("algorithm", "run")),
        "tags": tags,
        "config": _present(fields, lambda name: not _is_summary(name)),
    }
    if os.environ.get("WANDB_SWEEP_ID"):
        return about
    return {**about, "id": run_id(str(fields["id"]), group), "group": group, "project": project}


def _is_summary(name: str) -> bool:
    return name.startswith("final.") or name in ("diverged", "diverged_step", "stalled_step")


def _present(fields: Mapping[str, Any], keep: Callable[[str], bool]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if keep(name) and not _is_missing(value)}


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _rows(history: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows to log. NaN is left out: W&B would draw an empty chart for a metric that was never measured."""
    for record in history.drop(columns="id").iloc[thin(len(history))].to_dict("records"):
        yield {str(name): value for name, value in record.items() if not _is_missing(value)}


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


def _host() -> str:
    return urlsplit(os.environ.get("WANDB_BASE_URL") or _stored("base_url")).netloc or HOSTS[0]


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
