"""Sweep files are W&B's, too: the schema that its package `sweeps` publishes takes each of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from dopt.sweeps import plain

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "benchmarks").glob("*.yaml")), ROOT / "examples" / "plugin" / "sweep.yaml"]


@pytest.fixture(scope="module")
def published() -> Any:
    """The schema, read from the package's own file: importing the package warns."""
    found = importlib.util.find_spec("sweeps")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package sweeps is not installed")
    text = Path(found.submodule_search_locations[0], "config", "schema.json").read_text()
    return jsonschema.Draft7Validator(json.loads(text))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_sweep_file_is_one_of_wandb(file: Path, published: Any) -> None:
    content = plain.read(file)
    assert [error.message for error in published.iter_errors(content)] == []


@pytest.mark.parametrize(
    "wrong", [{"imports": ["my_method.py"]}, {"method": "gird"}, {"parameters": {"imports": ["my_method.py"]}}]
)
def test_the_schema_has_no_other_place_for_imports_than_a_parameter(wrong: dict[str, Any], published: Any) -> None:
    content = {"method": "grid", "parameters": {"imports": {"value": ["my_method.py"]}, "steps": {"value": 3}}}
    assert published.is_valid(content)
    assert not published.is_valid({**content, **wrong})
