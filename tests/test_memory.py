"""What the host can still give: its free memory, or less where a control group holds it back."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from dopt import memory


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_group_of_version_2_leaves_its_limit_minus_use_plus_the_cache_it_can_give_back(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/slice/job\n")
    group(tmp_path / "slice" / "job", memory__max="max\n", memory__current="10\n")
    group(tmp_path / "slice", memory__max="1000\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 50\n")
    assert memory.group_rooms(tmp_path, tmp_path / "self") == [1000 - 700 + 50]


def test_a_group_of_version_1_is_read_too_and_one_whose_path_is_the_hosts_lies_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("5:cpu:/x\n4:memory:/docker/0123\n0::/\n")
    group(tmp_path / "memory", memory__limit_in_bytes="500\n", memory__usage_in_bytes="100\n")
    assert memory.group_rooms(tmp_path, tmp_path / "self") == [400]


def test_without_groups_it_is_what_the_host_has_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "OF_PROCESS", tmp_path / "none")
    assert memory.available() <= psutil.virtual_memory().total


def test_a_group_bounds_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").write_text("0::/\n")
    group(tmp_path, memory__max="123456\n", memory__current="456\n")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory, "OF_PROCESS", tmp_path / "self")
    assert memory.available() == 123000
