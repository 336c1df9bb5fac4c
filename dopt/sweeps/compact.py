"""The runs' tables of many slabs in few files: to decode thousands of small files takes seconds.

results/NAME/compact/index.json        which table lies where, by the sha256 of the file in the slab; with a checksum
results/NAME/compact/SUM.parquet       tables that are alike, one below the other

The slabs are the only truth. Their files are read and their sums compared all the same: a table is taken from here only where its own file
is, byte for byte, the one that it was decoded from. What is damaged here counts for nothing, and all of it may be deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from dopt.files import write as write_file
from dopt.sweeps import columns, seal

FOLDER, INDEX = "compact", "index.json"
MANY = 256  # slabs whose tables had to be decoded: from here on it is worth to keep them


def read(results: Path) -> dict[str, pa.Table]:
    """sha256 of a slab's file -> the table in it."""
    folder, found = results / FOLDER, dict[str, pa.Table]()
    with suppress(OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        for part in seal.unseal((folder / INDEX).read_bytes())["parts"]:
            content = (folder / f"{part['sha256']}.parquet").read_bytes()
            if hashlib.sha256(content).hexdigest() == part["sha256"]:
                found |= _slices(columns.read(pa.BufferReader(content)), part["rows"])
    return found


def _slices(table: pa.Table, rows: Mapping[str, int]) -> dict[str, pa.Table]:
    """`rows`: of each table, in order."""
    found, begin = {}, 0
    for key, length in rows.items():
        found[key] = table.slice(begin, length)
        begin += length
    return found


def write(results: Path, tables: Mapping[str, pa.Table]) -> None:
    """Keep the tables, by the sha256 of the files that they were decoded from.

    Raises:
      MachineError: they cannot be written.
    """
    alike: dict[bytes, dict[str, pa.Table]] = {}
    for key, table in tables.items():
        alike.setdefault(table.schema.serialize().to_pybytes(), {})[key] = table
    (results / FOLDER).mkdir(exist_ok=True)
    parts = [_write_part(results / FOLDER, each) for each in alike.values()]
    write_file(results / FOLDER / INDEX, seal.seal({"parts": parts}))
    there = {f"{part['sha256']}.parquet" for part in parts}
    for old in (results / FOLDER).glob("*.parquet"):
        if old.name not in there:
            old.unlink(missing_ok=True)


def _write_part(folder: Path, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    content = columns.encoded(pa.concat_tables(tables.values()))
    digest = hashlib.sha256(content).hexdigest()
    write_file(folder / f"{digest}.parquet", content.to_pybytes())
    return {"sha256": digest, "rows": {key: len(table) for key, table in tables.items()}}
