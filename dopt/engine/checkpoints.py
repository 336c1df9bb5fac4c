"""Checkpoints of one long run, by orbax: where it was interrupted it goes on, to the same bits.

FOLDER/made_by.json   the run, its devices, and versions: whatever bits depend on
FOLDER/CALLS/         what the loop carries after so many calls of the program; orbax puts it in place by one rename

They are for runs that have not ended yet; results are what the run gives.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dopt import extras, files
from dopt.devices import hosts
from dopt.registry import coerce
from dopt.types import InputError, MachineError, Tree
from dopt.version import ENGINE, VERSION

MADE_BY = "made_by.json"


class Checkpoints(NamedTuple):
    """Where a run keeps its checkpoints, and how often it makes one."""

    folder: str | Path
    every: int  # steps from one to the next, at least; a checkpoint is made where a call of the program ends
    keep: int = 2  # the last so many stay


def due(ends: Sequence[int], every: int) -> list[int]:
    """After how many calls a checkpoint is made: the first to end at or past each multiple of `every`.

    Args:
      ends: of each call, the step at which it ends.
    """
    return (1 + np.flatnonzero(np.diff(np.asarray(ends, int) // every, prepend=0) > 0)).tolist()


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that orbax's threads say while they write: a full disk would be 160 lines, where one says it all."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _forget_threads() -> None:
    """Of orbax's threads that fail, what is left complains, now or later, that its loop is closed; nobody needs to know."""
    before = sys.unraisablehook

    def only_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    if getattr(before, "__name__", "") != only_others.__name__:
        sys.unraisablehook = only_others


def _said(error: Exception) -> str:
    """What the system said, in one line, without the internals of the store around it."""
    known = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO))
    return next((words for words in known if words in str(error)), " ".join(str(error).split())[:200])


class Keeper:
    """The checkpoints of one run, opened.

    Raises:
      InputError: a number that cannot be, a folder that cannot be written, or the checkpoints of another run.
    """

    def __init__(self, where: Checkpoints, run: str, devices: Any):
        extras.need("orbax-checkpoint", "checkpoint:")
        self.every = coerce("checkpoint_every", where.every, int)
        if self.every < 1:
            raise InputError(f"checkpoint_every: must be at least 1 step, got {self.every}")
        files.check_name("checkpoint", where.folder)
        self.folder = Path(where.folder).resolve()
        machine = {"devices": len(devices), "device": devices[0].device_kind}
        self._own({"run": run, **machine, "dopt": VERSION, "engine": ENGINE, "jax": jax.__version__})
        import orbax.checkpoint as ocp  # slow to import, and for few

        options = ocp.CheckpointManagerOptions(max_to_keep=where.keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._save, self._restore = ocp.args.StandardSave, ocp.args.StandardRestore

    def _own(self, mine: dict[str, Any]) -> None:
        """Refuse a folder that another run has; make it this one's where it is nobody's."""
        path = self.folder / MADE_BY
        try:
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                for name, value in mine.items():
                    if found.get(name) != value:
                        raise InputError(
                            f"checkpoint: {str(self.folder)!r} has {name}={found.get(name)}, this run has {name}={value}; choose another folder, or remove that one"
                        )
            elif hosts.first():
                self.folder.mkdir(parents=True, exist_ok=True)
                files.write(path, json.dumps(mine, indent=1))
        except OSError as error:
            why = error if isinstance(error, MachineError) else files.reason(error)
            raise MachineError(f"checkpoint: cannot use {str(self.folder)!r} ({why}); choose another folder") from error
        except (ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"checkpoint: cannot use {str(self.folder)!r} ({error}); choose another folder") from error

    def latest(self, carry: Tree) -> tuple[Tree, int]:
        """(what the loop carried, after how many calls), as NumPy arrays; as given, and 0, where there is none.

        Args:
          carry: the loop before its first step, which says of what shape all is.
        """
        done = self._manager.latest_step()
        if done is None:
            return carry, 0
        leaves, tree = jax.tree.flatten(carry)
        like = {str(i): np.empty(x.shape, x.dtype) for i, x in enumerate(leaves)}
        try:
            found = self._manager.restore(done, args=self._restore(like))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint: {str(self.folder / str(done))!r} is damaged ({str(error).splitlines()[0]}); remove it to go on from the one before"
            ) from error
        return jax.tree.unflatten(tree, [found[str(i)] for i in range(len(leaves))]), done

    def save(self, done: int, carry: Tree) -> None:
        """Write down what the loop carries after `done` calls.

        Raises:
          MachineError: it cannot be written; the checkpoints before it are still there.
        """
        leaves = {str(i): x for i, x in enumerate(jax.tree.leaves(hosts.fetch(carry)))}
        _forget_threads()
        fault = ""
        with _quiet():
            try:
                self._manager.save(done, args=self._save(leaves))
            except (OSError, ValueError, RuntimeError) as error:  # orbax hands on what its store of arrays says
                fault = _said(error)
            if fault:
                gc.collect()  # what the threads left complains while nobody listens
        if fault:
            for half in self.folder.glob(f"{done}.*tmp*"):
                shutil.rmtree(half, ignore_errors=True)
            raise MachineError(
                f"checkpoint: cannot write {str(self.folder / str(done))!r} ({fault}); the ones before it are kept"
            )

    def close(self) -> None:
        self._manager.close()
