"""A slab's write: it is on the disk before it has its name, and where the disk refuses, nothing is left of it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dopt.sweeps import columns, pipeline
from dopt.sweeps.store import MANIFEST, TABLES, SlabError, Store
from dopt.types import MachineError

IDS = ["one", "other"]


def table(rows: int) -> pa.Table:
    return columns.table(
        {"id": columns.column(IDS, [row % 2 for row in range(rows)]), "loss": columns.of_array(np.ones(rows))}
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.create()
    return made


def write(store: Store) -> None:
    store.write_slab("slab", table(2), table(6), {"slab": "slab", "runs": IDS})


def test_a_slab_is_on_the_disk_before_it_has_its_name_and_then_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", lambda *paths: events.append("named") or rename(*paths))
    write(store)
    named = events.index("named")
    (temporary,) = (event for event in events if event.startswith(".tmp-slab-"))
    assert sorted(events[:named]) == sorted([temporary, MANIFEST, *TABLES])
    assert events[named + 1 :] == ["slabs"]
    store.check_slab("slab", IDS)


@pytest.mark.parametrize("refused", [*TABLES, MANIFEST, ".tmp-slab-"])
def test_where_any_part_does_not_reach_the_disk_nothing_is_left(
    refused: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.startswith(refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(MachineError, match=r"^results: cannot write to .*slab' \(Input/output error\)"):
            write(store)
    assert list((store.folder / "slabs").iterdir()) == []
    write(store)
    store.check_slab("slab", IDS)


def test_of_two_that_write_a_slab_the_first_one_stays_and_the_second_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process was stopped for so long that its claim was taken over."""
    write(store)
    kept = {path: path.read_bytes() for path in store.slab("slab").iterdir()}
    store.write_slab("slab", table(3), table(9), {"slab": "slab", "runs": [*IDS, "c"]})
    assert {path: path.read_bytes() for path in store.slab("slab").iterdir()} == kept
    assert [path.name for path in (store.folder / "slabs").iterdir()] == ["slab"]

    # who comes first clears up what the second one has begun; then there is no folder any more to write to
    shutil.rmtree(store.slab("slab"))
    real = columns.write

    def slow(table: pa.Table, path: Path) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(columns, "write", real)
            write(store)
        return real(table, path)

    monkeypatch.setattr(columns, "write", slow)
    store.write_slab("slab", table(3), table(9), {"slab": "slab", "runs": [*IDS, "c"]})
    store.check_slab("slab", IDS)
    assert [path.name for path in (store.folder / "slabs").iterdir()] == ["slab"]


@pytest.mark.parametrize("file", TABLES)
def test_bytes_that_the_disk_changed_while_they_were_written_are_found_out(
    file: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum is of what was to be written, not of what could be read back."""
    real = Path.write_bytes

    def changed(path: Path, content: bytes) -> int:
        kept = bytearray(content)
        if path.name == file:
            kept[len(kept) // 2] ^= 1
        return real(path, kept)

    monkeypatch.setattr(Path, "write_bytes", changed)
    write(store)
    with pytest.raises(SlabError, match=f"damaged slab: .*{file} is truncated or altered"):
        store.check_slab("slab", IDS)


def test_versions_are_looked_up_once_for_all_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    pipeline.versions.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "installed", lambda name: asked.append(name))
        assert pipeline.versions() == pipeline.versions()
    pipeline.versions.cache_clear()
    assert asked == list(pipeline.PACKAGES)
