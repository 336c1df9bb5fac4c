"""The report page, without a browser: what it holds, what it never holds, how large it is, and what is refused. `make page` looks at it in one."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dopt
from dopt import Run, extras, mixing, page, theory
from dopt.cli import main
from dopt.facts import wiring
from dopt.page import clocks, material, overlays, question, thin
from dopt.page.payload import Arrays, encoded
from dopt.types import InputError

STORE = Path(__file__).parent / "data" / "stores" / "format-4"
EVIL = '<script>document.title="owned"</script>"\'&$$x$$'


class Tags(HTMLParser):
    """All tags of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def content(text: str) -> dict[str, object]:
    """What a page's scripts read."""
    found = re.search(r'id="content">([^<]*)<', text)
    assert found is not None
    whole = zlib.decompress(base64.b64decode(found[1]), 16 + zlib.MAX_WBITS)
    said: dict[str, object] = json.loads(whole[8 : 8 + int.from_bytes(whole[:4], "little")])
    return said


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a store, by the command."""
    place = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["report", str(STORE), "-o", str(place)]) == 0
    return place.read_text()


# -- what it holds --


def test_nothing_on_the_page_comes_from_elsewhere(written: str) -> None:
    tags = Tags(written).tags
    named = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "action")]
    assert all(value is not None and value.startswith("#") for value in named)
    assert not [tag for tag, _ in tags if tag in ("link", "img", "iframe", "object", "base")]
    (policy,) = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_each_section_is_there_once_and_can_be_gone_to(written: str) -> None:
    tags = Tags(written).tags
    names = [attributes["id"] for tag, attributes in tags if tag == "section"]
    assert names == ["question", "heat", "curves", "tuned", "topologies", "clocks", "source"]
    assert [attributes["href"] for tag, attributes in tags if tag == "a"] == [f"#{name}" for name in names]


def test_the_page_has_every_run_and_every_metric_of_the_store(written: str) -> None:
    results, said = dopt.load(STORE), content(written)
    runs, curves = said["runs"], said["curves"]
    assert isinstance(runs, dict)
    assert isinstance(curves, dict)
    assert runs["id"] == results.runs["id"].tolist()
    assert set(curves["records"]["columns"]) == set(results.history.columns) - {"id"}


def test_names_of_users_never_become_html(tmp_path: Path) -> None:
    evil = made_up.results(
        tmp_path / "evil",
        name=EVIL,
        text=f"# {EVIL}\nname: x # </script>{EVIL}\n",
        metrics=["loss", EVIL],
        varied=("algorithm", EVIL, "seed"),
        algorithm=[EVIL, "gossip_sgd"] * 6,
        **{EVIL: ["a", EVIL, f"{EVIL}2"] * 4},
    )
    text = page.write(tmp_path / "page.html", evil).read_text()
    plain = page.write(tmp_path / "plain.html", made_up.results(tmp_path)).read_text()
    assert text.count("<script") == plain.count("<script")
    assert '"owned"' not in text
    assert "&lt;script&gt;document.title=" in text


def test_the_question_is_the_comment_at_the_head_of_the_file() -> None:
    text = "# Who wins?\n#\n# Found: nobody\n#   does.\nname: x\n# not this\n"
    assert question.paragraphs(text) == ["Who wins?", "Found: nobody does."]
    assert question.paragraphs("name: x\n# later\n") == []


# -- how large it is --


def test_a_run_takes_no_more_than_its_200_points_in_16_bits(tmp_path: Path) -> None:
    def size(runs: int) -> int:
        return len(
            page.write(
                tmp_path / "page.html", made_up.results(tmp_path, runs=runs, records=500, metrics="abcde")
            ).read_bytes()
        )

    each = (size(240) - size(120)) / 120
    assert each <= 5 * 200 * 2 * 4 / 3 + 400  # base64 is 4/3, and a run's fields and scales are not much


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(width=32), min_size=1, max_size=40), min_size=1, max_size=5))
def test_what_is_kept_in_16_bits_is_as_near_as_is_said(curves: list[list[float]]) -> None:
    count = np.array([len(curve) for curve in curves])
    values = np.concatenate(curves)
    coded = thin.coded(values, count)
    found = coded.values(count)
    finite = np.isfinite(values)
    assert np.array_equal(found[~finite], values[~finite], equal_nan=True)
    span = np.repeat(coded.high - coded.low, count)
    room = np.where(np.repeat(coded.ratios, count), np.abs(values), span) * coded.error
    assert (np.abs(found[finite] - values[finite]) <= room[finite] * (1 + 1e-9) + 1e-300).all()


@settings(max_examples=60)
@given(st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_a_thinned_curve_has_at_most_200_points_with_its_ends_and_extremes(records: int, seed: int) -> None:
    columns = np.random.default_rng(seed).standard_normal((3, records))
    columns[0, records // 2 :] = np.nan
    kept = thin.chosen(list(columns))
    assert len(kept) <= thin.POINTS
    assert (np.diff(kept) > 0).all()
    extremes = {int(place) for column in columns[1:] for place in (column.argmin(), column.argmax())}
    assert {0, records - 1} | extremes <= set(kept.tolist())
    assert records > thin.POINTS or len(kept) == records


def test_the_same_content_is_the_same_text_and_arrays_lie_where_it_says() -> None:
    def made() -> tuple[str, list[list[int | str]]]:
        arrays = Arrays()
        places = [arrays.add(np.arange(5), "u2"), arrays.add(np.array([0.5, 2]), "f8")]
        return encoded({"places": places}, arrays), places

    text, places = made()
    assert text == made()[0]
    whole = zlib.decompress(base64.b64decode(text), 16 + zlib.MAX_WBITS)
    begin = 8 + int.from_bytes(whole[:4], "little")
    found = [np.frombuffer(whole, f"<{kind}", int(count), begin + int(at)) for at, count, kind in places]
    assert [part.tolist() for part in found] == [[0, 1, 2, 3, 4], [0.5, 2]]


# -- what it takes, and what it refuses --


@pytest.mark.parametrize(
    "odd",
    [
        {"metric": {}},
        {"metric": {"name": "loss"}},
        {"metric": {"name": "not recorded", "target": 1.0}},
        {"runs": 1, "varied": ()},
        {"runs": 1, "records": 1},
        {"delay": [0, "cluster", 2, None] * 3, "varied": ("algorithm", "delay")},
        {"topology.shape": [(2, 4), (8,), None] * 4, "varied": ("algorithm", "topology.shape")},
        {"learning_rate": np.geomspace(1e-3, 1, 12), "diverged": [True] * 12, "diverged_step": [50] * 12},
    ],
)
def test_odd_sweeps_make_a_page(odd: dict[str, object], tmp_path: Path) -> None:
    assert "</html>" in page.write(tmp_path / "page.html", made_up.results(tmp_path, **odd)).read_text()  # type: ignore[arg-type]


def test_runs_of_which_nothing_is_finite_make_a_page(tmp_path: Path) -> None:
    lost = made_up.results(tmp_path, diverged=[True] * 12)
    assert isinstance(lost.records, pd.DataFrame)
    lost.records["loss"] = np.nan
    lost.runs["final.loss"] = np.inf
    text = page.write(tmp_path / "page.html", lost).read_text()
    runs = content(text)["runs"]
    assert isinstance(runs, dict)
    assert set(runs["final.loss"]) == {"inf"}


def test_results_write_their_own_page(tmp_path: Path) -> None:
    written = made_up.results(tmp_path, name="its own").page(tmp_path / "page.html")
    assert "<h1>its own</h1>" in written.read_text()


def test_several_sweeps_are_told_apart_by_a_parameter(tmp_path: Path) -> None:
    two = [
        made_up.results(tmp_path / name, name=name, id=[f"{name}{i}" for i in range(12)]) for name in ("one", "other")
    ]
    for each in two:
        assert isinstance(each.records, pd.DataFrame)
        each.records["id"] = np.repeat(each.runs["id"].to_numpy(), 30)
    said = content(page.write(tmp_path / "page.html", *two).read_text())
    runs, varied = said["runs"], said["varied"]
    assert isinstance(runs, dict)
    assert isinstance(varied, list)
    assert varied[0] == "sweep"
    assert runs["sweep"] == ["one"] * 12 + ["other"] * 12


def test_records_are_kept_of_tuned_runs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "POINTS", 5 * 30)
    found = material.gathered([made_up.results(tmp_path)])
    assert found.has_curve.sum() == 5
    assert found.runs[material.BEST][found.has_curve].all()


@pytest.mark.parametrize("where", ["empty", "missing"])
def test_a_folder_without_a_sweep_is_refused_in_one_line(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / where), "-o", str(tmp_path / "page.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no sweep in" in line
    assert not (tmp_path / "page.html").exists()


def test_a_missing_bokeh_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(extras.EXTRAS, "bokeh", ("no_such_module", "report"))
    assert main(["report", str(STORE), "-o", str(tmp_path / "page.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install 'dopt[report]'")


def test_more_runs_than_a_page_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "MOST", 10)
    with pytest.raises(InputError, match="at most 10 runs, got 12; choose some with --where"):
        page.write(tmp_path / "page.html", made_up.results(tmp_path))


# -- what theory says of it --

QUADRATIC = {
    "problem": "quadratic",
    "problem.dim": 3,
    "workers": 4,
    "learning_rate": 0.3,
    "steps": 10,
    "precision": "float64",
}


@pytest.mark.parametrize("first", [False, True])
def test_floors_are_where_gossip_comes_to_rest(first: bool) -> None:
    run = Run.from_dict(
        {**QUADRATIC, "algorithm": "gossip_sgd", "topology": "ring", "algorithm.adapt_then_combine": first}
    ).resolve()
    a, b = overlays._quadratic(run)
    w, x = mixing.dense(wiring.matrix(run)), np.zeros_like(b)
    for _ in range(2000):
        pull = run.learning_rate * np.einsum("nij,nj->ni", a, x - b)
        x = w @ (x - pull) if first else w @ x - pull
    floors = {said.metric: said.values[0] for said in overlays.said_of(run)}
    assert floors["consensus_distance"] == pytest.approx(np.mean(np.sum((x - x.mean(0)) ** 2, 1)), rel=1e-9)


def test_paths_are_those_of_delayed_sgd() -> None:
    run = Run.from_dict({**QUADRATIC, "algorithm": "delayed_sgd", "delay": 2, "steps": 60, "record_every": 1}).resolve()
    paths = {said.metric: said for said in overlays.said_of(run)}
    history = dopt.run(run).history
    for metric in ("suboptimality", "grad_norm"):
        at = paths[metric].steps
        np.testing.assert_allclose(paths[metric].values, np.asarray(history[metric])[at], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("queue", [False, True])
def test_the_path_of_delayed_descent_shrinks_by_its_factor_in_the_end(queue: bool) -> None:
    away = theory.delayed_descent(np.array([[0.4]]), np.ones(1), 0.2, 3, 300, queue=queue)[:, 0]
    assert abs(away[-1] / away[-41]) ** (1 / 40) == pytest.approx(theory.delayed_factor(0.08, 3), rel=1e-9)


@pytest.mark.parametrize(
    "other",
    [
        {"problem.noise": 0.1},
        {"optimizer": "adam"},
        {"learning_rate": 5.0},
        {"algorithm.local_steps": 2},
        {"link_loss": 0.1},
    ],
)
def test_where_no_closed_form_is_about_a_run_none_is_drawn(other: dict[str, object]) -> None:
    run = Run.from_dict({**QUADRATIC, "algorithm": "gossip_sgd", "topology": "ring", **other}).resolve()
    assert overlays.said_of(run) == []


def test_staleness_is_geometric_where_all_are_memoryless_and_alike() -> None:
    flat = {
        "algorithm": "async_sgd",
        "problem": "quadratic",
        "workers": 5,
        "learning_rate": 0.1,
        "steps": 10,
        "cluster": "exponential",
    }
    told = clocks._theory(Run.from_dict(flat).resolve())
    assert sum(told.share) == pytest.approx(1, abs=1e-6)
    for other in ({"cluster": "constant"}, {"cluster.straggler": 4}, {"cluster.latency": 0.1}):
        assert clocks._theory(Run.from_dict({**flat, **other}).resolve()) == clocks.Told("", [])
