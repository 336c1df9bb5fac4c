"""Conditions as text: they choose what a mask of pandas chooses, and what cannot be meant is refused in one line."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopt.sweeps.where import mask, parse
from dopt.types import InputError

SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
TABLE = pd.DataFrame(
    {
        "topology": ["ring", "star", "ring", None],
        "delay": [0, 2, "uniform", 4],
        "learning_rate": [0.1, 0.2, 0.3, np.nan],
        "steps": [10, 20, 30, 2**62 + 1],
        "stalled_step": pd.array([None, 7, None, 3], "Int64"),
        "strict": [True, False, True, True],
        "cluster.scale": [(1, 2), 3.0, (1, 2, 3), (1, 2)],
        "note": ["a, b", "none", "it's", "1"],
        "seconds": [None] * 4,
    }
)


def rows(text: str) -> list[int]:
    return np.flatnonzero(mask(TABLE, parse(text))).tolist()


@given(
    st.lists(st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.none()), max_size=12),
    st.sampled_from(list(SIGNS)),
    st.one_of(st.integers(-5, 5), st.floats(allow_nan=False)),
)
def test_numbers_are_chosen_as_by_a_mask(values: list[float | None], sign: str, value: float) -> None:
    column = pd.Series(values, dtype="float64")
    chosen = mask(column.to_frame("x"), parse(f"x{sign}{value!r}"))
    assert chosen.tolist() == SIGNS[sign](column, value).tolist()


@given(st.lists(st.text(), max_size=8), st.text("abc ,=<>!\\\n#é", min_size=1), st.sampled_from(["=", "!="]))
def test_texts_in_quotes_are_chosen_as_by_a_mask(values: list[str], value: str, sign: str) -> None:
    column = pd.Series([*values, value], dtype="str")
    chosen = mask(column.to_frame("x"), parse(f'x {sign} "{value}"'))
    assert chosen.tolist() == SIGNS[sign](column, value).tolist()


@given(st.integers(-(2**80), 2**80), st.sampled_from(list(SIGNS)))
def test_whole_numbers_are_compared_exactly(value: int, sign: str) -> None:
    column = pd.Series([2**53, 2**53 + 1, -(2**63)], dtype="int64")
    assert mask(column.to_frame("x"), parse(f"x{sign}{value}")).tolist() == [
        SIGNS[sign](x, value) for x in column.tolist()
    ]


@given(st.one_of(st.text(), st.from_regex(r"(delay|topology|strict|cluster\.scale)[=!<>]{1,2}['\"]?.{0,5}['\"]?")))
def test_any_text_is_taken_or_refused_in_one_line(text: str) -> None:
    said = refusal(text)
    assert said is None or (said.startswith("where: ") and len(said.splitlines()) == 1)


def refusal(text: str) -> str | None:
    try:
        rows(text)
    except InputError as error:
        return str(error)
    return None


@given(st.lists(st.sampled_from(["topology=ring", "delay!=2", "learning_rate<=0.2", "strict=true"]), min_size=1))
def test_all_conditions_must_hold(parts: list[str]) -> None:
    assert rows(" , ".join(parts)) == sorted(set.intersection(*(set(rows(part)) for part in parts)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("topology=ring", [0, 2]),
        ("topology == ring", [0, 2]),
        ("topology='ring'", [0, 2]),
        ("topology!=ring", [1, 3]),  # what is missing is not ring
        ("topology=none", [3]),
        ("topology!=none", [0, 1, 2]),
        ("note='none'", [1]),
        ("note=none", []),
        ("delay>1", [1, 3]),  # of a column that mixes, numbers have an order
        ("delay=uniform", [2]),
        ("delay!=uniform", [0, 1, 3]),
        ("delay=2.0", [1]),
        ("learning_rate>0", [0, 1, 2]),  # what is missing has none
        ("learning_rate<inf", [0, 1, 2]),
        ("steps=4611686018427387905", [3]),
        ("steps=4611686018427387904", []),
        ("stalled_step<5", [3]),
        ("stalled_step!=7", [0, 2, 3]),
        ("strict=TRUE", [0, 2, 3]),
        ("strict!=true", [1]),
        ("cluster.scale='[1, 2]'", [0, 3]),
        ("cluster.scale=3", [1]),
        ('note="a, b"', [0]),
        ('note="it\'s"', [2]),
        ("note=1", [3]),  # a column of texts
        ("seconds=3", []),
        ("seconds!=3", [0, 1, 2, 3]),
    ],
)
def test_a_value_is_read_by_the_type_of_its_column(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a condition is empty; give NAME OP VALUE"),
        ("strict=true,", "a condition is empty"),
        ("strict=true,,delay=2", "a condition is empty"),
        ("strict", "'strict' is not a condition"),
        ("=3", "'=3' has no name"),
        ("delay=", "'delay=' has no value"),
        ("delay=>2", "'delay=>2' is not a condition"),
        ("topolgy=ring", "no column 'topolgy'; did you mean 'topology'?"),
        ("steps=many", "steps is a number, got 'many'"),
        ("steps='10'", "steps is a number, got '10' in quotes"),
        ("steps=nan", "got 'nan'"),
        ("steps=1_0", "got '1_0'"),
        ("strict=1", "strict is a truth value, got '1'"),
        ("topology>ring", "only numbers can be compared by size, and topology is a text"),
        ("strict<true", "only numbers can be compared by size"),
        ("delay>uniform", "only numbers can be compared by size"),
        ("delay<none", "a missing value has no order"),
        ("note='a", "a quote is not closed"),
        ("cluster.scale='[1, 2'", "cluster.scale is a list or a number"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"^where: ") as error:
        rows(text)
    assert said in str(error.value)


def test_a_row_is_chosen_whatever_the_index() -> None:
    table = TABLE.iloc[::-1]
    found: Any = table[mask(table, parse("topology=ring"))]
    assert found["steps"].tolist() == [30, 10]
