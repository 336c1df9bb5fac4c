"""A results folder keeps the file of its sweep, word for word, for who reads it later; older folders have none, and are read all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import small_sweep

from dopt.sweeps import spec
from dopt.sweeps.store import Store

STORES = Path(__file__).parent / "data" / "stores"


def test_the_text_of_a_sweep_is_its_file_word_for_word_and_what_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("# Does it pay?\nname: own\nparameters: {steps: {value: 10}}\n\n\n")
    assert spec.written(file) == "# Does it pay?\nname: own\nparameters: {steps: {value: 10}}\n"
    assert spec.written(file, {"seed": [0, 1]}).endswith("{value: 10}}\n# run with --set seed=[0, 1]\n")
    assert "\n" not in spec.written(file, {"seed": "0\nname: other"}).partition("--set ")[2].rstrip("\n")


def test_the_text_of_a_dictionary_says_the_same_as_the_dictionary() -> None:
    assert spec.load_yaml(spec.written(small_sweep())) == small_sweep()


@pytest.mark.parametrize("value", [np.arange(3), object()])
def test_a_dictionary_of_more_than_plain_data_has_no_text(value: Any) -> None:
    assert spec.written({"parameters": {"seed": {"values": value}}}) == ""


def test_a_store_keeps_the_last_text_that_there_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.text() == ""
    for text in ("name: a\n", "name: b\n", ""):
        store.write_text(text)
    assert store.text() == "name: b\n"
    assert Store(STORES / "format-4").text() == ""
