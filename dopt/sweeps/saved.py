"""A run as files that any tool reads, without dopt and without pickle: what it was, its records, its models.

run.json          id, fields, where it diverged or stalled, notes, versions, and the shape of each model's arrays
history.parquet   a row for each record: `pandas.read_parquet("DIR/history.parquet")`
models.npz        the last models by name, as "params/dense/kernel", [workers, ...] each (of server methods [1, ...]):
`dict(numpy.load("DIR/models.npz"))`; other models of a method are there, too ("center/..." of easgd)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from dopt.engine.single import Result
from dopt.files import is_writable, whole, write, writing
from dopt.sweeps import columns
from dopt.sweeps.tables import of_result
from dopt.types import InputError, MachineError, Tree
from dopt.version import VERSION

ABOUT, HISTORY, MODELS = "run.json", "history.parquet", "models.npz"


def save(result: Result, folder: str | Path) -> list[Path]:
    """Write a run into a folder, in the place of what was saved there of the same run; the files, `run.json` last.

    Raises:
      InputError: the folder holds another run.
      MachineError: it cannot be written.
    """
    folder = Path(folder)
    check(result.id, folder)
    about, history, models = (folder / name for name in (ABOUT, HISTORY, MODELS))
    arrays = dict(_arrays(result))
    with writing("save", folder, "--save"):
        folder.mkdir(parents=True, exist_ok=True)
        with whole(models) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)  # type: ignore[arg-type, unused-ignore]
        with whole(history) as temporary:
            columns.write(of_result(result)[1], temporary)
        write(about, json.dumps(_about(result, arrays), indent=1, default=list) + "\n")
    return [models, history, about]


def check(identity: str, folder: str | Path) -> None:
    """Whether the run of that id can be saved in the folder; errors as of `save`."""
    path = Path(folder) / ABOUT
    if not identity:
        raise InputError(
            "save: a run with optimizer= has no id, which a folder needs to know its run; save its history and params yourself"
        )
    if not is_writable(folder):
        raise MachineError(f"save: cannot write to {str(folder)!r}; choose another place with --save")
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, LookupError, TypeError):
        kept = "of another tool"
    if kept != identity:
        raise InputError(f"save: {str(folder)!r} holds the run {kept}; choose another folder")


def _arrays(result: Result) -> Iterator[tuple[str, np.ndarray]]:
    """The models' arrays by name."""
    trees: dict[str, Tree] = {"params": result.params, **result.extra}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        array = np.asarray(leaf)  # NumPy's file format knows no bfloat16
        yield (
            jax.tree_util.keystr(path, simple=True, separator="/"),
            array if array.dtype.kind != "V" else array.astype("f4"),
        )


def _about(result: Result, arrays: dict[str, np.ndarray]) -> dict[str, object]:
    return {
        "id": result.id,
        "run": result.run.to_dict(),
        "diverged_step": result.diverged_step,
        "stalled_step": result.stalled_step,
        "spectral_gap": None if math.isnan(result.spectral_gap) else result.spectral_gap,
        "notes": list(result.notes),
        "models": {name: list(array.shape) for name, array in arrays.items()},
        "dopt": VERSION,
        "jax": jax.__version__,
    }
