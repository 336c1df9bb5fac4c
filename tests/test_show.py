"""What is said and drawn of a topology: its numbers are the closed forms, its picture is a picture."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from refusals import refused

from dopt import mixing, topology
from dopt.cli import main
from dopt.plot import topology as picture
from dopt.report.topology import Facts, facts, glance, verdicts
from dopt.topology import TOPOLOGIES, sequences

N, DECAY = 16, 0.9
TREES = "relay_sgd"  # which takes the links alone
PAIRS = "ad_psgd"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def facts_of(name: str, n: int = N, rule: str | None = None, **options: Any) -> Facts:
    return facts(mixing.weights(topology.make(name, n, **options), rule))


def refusals(name: str, rule: str | None = None, n: int = N, **options: Any) -> dict[str, str]:
    """Method -> why, of those that refuse."""
    found = verdicts(topology.make(name, n), rule, options)
    return {method: reason for method, reason in found.items() if reason}


def steps_to_agree(rho: float) -> int:
    return math.ceil(math.log(1e-6) / math.log(rho))


def fails(capsys: pytest.CaptureFixture, arguments: list[str], *said: str, code: int = 2) -> None:
    refused(capsys, arguments, *said, code=code)
    assert not list(Path.cwd().glob("*.png"))


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 16])
def test_a_ring_has_the_numbers_of_its_fourier_modes(n: int) -> None:
    found = facts_of("ring", n)
    values = (1 + 2 * np.cos(2 * np.pi * np.arange(n) / n)) / 3
    rho = values[1]
    assert found.gap == pytest.approx(1 - rho)
    assert found.neighbours == pytest.approx(10 / np.mean(values**2 / (1 - DECAY * values**2)))
    assert found.time == steps_to_agree(rho)
    assert (found.workers, found.degree, found.diameter) == (n, (2, 2), n // 2)
    assert (found.symmetric, found.doubly_stochastic, found.connected) == (True, True, True)
    assert found.gap_kind.startswith("doubly stochastic")


def test_a_complete_graph_averages_at_once() -> None:
    found = facts_of("complete")
    assert (found.degree, found.diameter, found.gap, found.time) == ((N - 1, N - 1), 1, 1, 1)
    assert found.neighbours == pytest.approx(N)


def test_a_star_has_two_kinds_of_workers() -> None:
    found = facts_of("star")  # λ = 1, 0, and 1 - 1/n for what differs between the leaves
    assert (found.degree, found.diameter) == ((1, N - 1), 2)
    assert found.gap == pytest.approx(1 / N)
    assert found.time == steps_to_agree(1 - 1 / N)
    leaves = 1 - 1 / N
    assert found.neighbours == pytest.approx(10 * N / (10 + (N - 2) * leaves**2 / (1 - DECAY * leaves**2)))


def test_an_exponential_graph_is_directed_and_mixes_fast() -> None:
    found = facts_of("exponential")
    assert (found.degree, found.diameter) == ((4, 4), 4)  # hops: the bits that are set
    assert found.gap == pytest.approx(2 / (1 + math.log2(N)))  # Ying et al. 2021, theorem 1
    assert (found.symmetric, found.doubly_stochastic, found.connected) == (False, True, True)


def test_two_rings_never_agree() -> None:
    found = facts_of("disconnected")
    assert (found.gap, found.diameter, found.time, found.connected) == (0, math.inf, math.inf, False)


def test_what_is_not_doubly_stochastic_has_no_effective_neighbours() -> None:
    found = facts_of("star", rule="push")
    assert math.isnan(found.neighbours)
    assert not found.doubly_stochastic
    assert found.gap_kind.startswith("not doubly stochastic")
    assert found.connected


def test_of_a_period_the_degree_is_a_steps_and_the_gap_the_products() -> None:
    found = facts_of("one_peer_exponential")
    assert (found.degree, found.diameter, found.gap, found.time) == ((1, 1), 4, 1, 4)


@pytest.mark.parametrize("n", [15, 16])
def test_of_random_matchings_the_gap_is_in_the_mean_square(n: int) -> None:
    found = facts_of("random_matching", n)
    meet = 1 / (n if n % 2 else n - 1)
    assert found.gap == pytest.approx(meet * n / 2)
    assert (found.degree, found.diameter) == ((1 - n % 2, 1), 1)
    assert found.time == math.ceil(2 * math.log(1e-6) / math.log(1 - found.gap))
    assert math.isnan(found.neighbours)


def test_matchings_that_are_active_now_and_then_leave_workers_alone() -> None:
    assert facts_of("matcha").degree == (0, 2)


@pytest.mark.parametrize("name", ["ring", "one_peer_ring", "random_matching"])
def test_one_worker_has_numbers_and_a_picture(name: str) -> None:
    found = facts_of(name, 1)
    assert (found.workers, found.degree, found.diameter, found.time, found.connected) == (1, (0, 0), 0, 0, True)
    picture.draw(mixing.weights(topology.make(name, 1)))


# -- who accepts it ---------------------------------------------------------------------------------------------------


def test_d2_alone_refuses_the_default_ring_and_accepts_a_lazy_one() -> None:
    assert refusals("ring") == {
        "d2": "mixing: W must have λ_min > -1/3 for d2; λ_min is -0.333333; try `weights: lazy`"
    }
    assert refusals("ring", "lazy") == {}
    assert refusals("ring", "lazy", base="metropolis_tight") == {}


def test_with_push_weights_a_star_serves_push_methods_alone() -> None:
    refused = refusals("star", "push")
    accepted = set(verdicts(topology.make("star", N), "push")) - set(refused)
    assert accepted == {"push_sum_sgd", "push_diging", TREES, PAIRS}
    assert refused["gossip_sgd"].startswith("mixing: W must be doubly stochastic for gossip_sgd")


def test_each_method_is_asked_with_the_weights_that_it_takes_by_default() -> None:
    refused = refusals("random_digraph")  # uniform would be row stochastic only
    assert {"gossip_sgd", "gradient_tracking", "d2", TREES} <= set(refused)
    assert not {"push_sum_sgd", "push_diging", "push_pull"} & set(refused)


def test_nobody_accepts_what_falls_apart_and_only_sums_accept_what_changes() -> None:
    assert set(refusals("disconnected")) == set(verdicts(topology.make("ring", N)))
    static = {"exact_diffusion", "d2", "extra", "nids", TREES, PAIRS}
    for name in ("one_peer_exponential", "random_matching"):
        assert set(refusals(name)) == static
    assert not any("strict" in reason or "\n" in reason for reason in refusals("disconnected").values())


# -- the command ------------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[dict[str, str], str]:
    """(the rows of the first table, all that is said)."""
    assert main(["show", "topology", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = (re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}, out


def colours(path: Path) -> int:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return len(np.unique(imread(path).reshape(-1, 4), axis=0))


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("ring",), "topology_ring.png"),
        (("exponential", "--workers", "8", "--weights=lazy"), "topology_exponential.png"),
        (("one_peer_exponential",), "topology_one_peer_exponential.png"),
        (("matcha", "--topology.budget=0.4"), "topology_matcha.png"),
        (("networkx:petersen_graph",), "topology_networkx-petersen_graph.png"),
    ],
)
def test_show_writes_a_picture_and_says_where(
    arguments: tuple[str, ...], file: str, capsys: pytest.CaptureFixture
) -> None:
    _, out = shown(capsys, *arguments)
    assert out.endswith(f"wrote {file}\n")
    assert colours(Path(file)) > 10
    assert [path.name for path in Path.cwd().iterdir()] == [file]


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_a_picture_is_what_its_ending_says_and_the_same_bytes_each_time(
    ending: str, capsys: pytest.CaptureFixture
) -> None:
    for place in ("one", "two"):
        _, out = shown(capsys, "torus", "--workers=9", "-o", f"{place}/torus.{ending}")
        assert out.endswith(f"wrote {place}/torus.{ending}\n")
    one, two = (Path(place, f"torus.{ending}").read_bytes() for place in ("one", "two"))
    assert one == two
    assert {"pdf": b"%PDF", "svg": b"<svg", "png": b"\x89PNG"}[ending] in one[:500]


def test_a_picture_of_another_kind_is_refused_before_anything_is_made(capsys: pytest.CaptureFixture) -> None:
    assert main(["show", "topology", "torus", "--out=torus.jpg"]) == 2
    assert capsys.readouterr().err == "dopt: out: must end in .png, .pdf, .svg, or be a folder, got 'torus.jpg'\n"


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures without anything on them, which take no time."""
    monkeypatch.setattr(picture, "draw", lambda *_: Figure())


@pytest.mark.usefixtures("blank")
def test_show_prints_the_numbers(capsys: pytest.CaptureFixture) -> None:
    rows, _ = shown(capsys, "ring", "--out", "pictures/here")
    assert (rows["workers"], rows["weights"], rows["degree"], rows["diameter"]) == ("16", "metropolis", "2", "8")
    assert rows["spectral gap"].startswith("0.05075 (doubly stochastic: 1 - ")
    assert rows["effective neighbours (decay 0.9)"] == "6.601"
    assert rows["consensus time to 1e-6 (steps)"] == "266"
    assert (rows["symmetric"], rows["doubly stochastic"], rows["connected"]) == ("yes", "yes", "yes")
    assert "gossip_sgd" in rows["accepted by"]
    assert rows["d2"].startswith("mixing: W must have λ_min > -1/3")
    assert Path("pictures/here/topology_ring.png").is_file()
    rows, _ = shown(capsys, "disconnected")
    assert (rows["diameter"], rows["consensus time to 1e-6 (steps)"]) == ("infinite", "never")
    assert (rows["connected"], rows["accepted by"]) == ("no", "no gossip method")
    rows, _ = shown(capsys, "star", "--workers=6", "--weights=constant", "--weights.edge=0.1")
    assert (rows["weights"], rows["degree"]) == ("constant", "1-5")


@pytest.mark.usefixtures("blank")
def test_a_file_says_itself_how_many_workers_there_are(capsys: pytest.CaptureFixture) -> None:
    folder = Path("graphs")
    folder.mkdir()
    nx.write_edgelist(nx.path_graph(5), folder / "mine.edges", data=False)
    rows, _ = shown(capsys, "graphs/mine.edges")
    assert (rows["workers"], rows["degree"], rows["diameter"]) == ("5", "1-2", "4")
    (folder / "cycle.edges").write_text("# directed\n0 1\n1 2\n2 0\n")
    rows, _ = shown(capsys, "graphs/cycle.edges")
    assert (rows["workers"], rows["diameter"], rows["symmetric"]) == ("3", "2", "no")
    Path("topology_mine.edges.png").unlink()
    Path("topology_cycle.edges.png").unlink()
    fails(capsys, ["show", "topology", "graphs/mine.edges", "--workers=6"], "has 5 nodes", "set workers to 5")


@pytest.mark.usefixtures("blank")
def test_a_file_whose_labels_name_no_workers_says_who_is_who(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "apart.edges"
    for last, said in ((9, 1), (3, 0)):
        file.write_text(f"0 1\n1 2\n2 {last}\n")
        assert shown(capsys, str(file))[1].count("workers are numbered in the order of the file") == said
    Path("topology_apart.edges.png").unlink()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rign"], ("topology: unknown name 'rign'", "did you mean 'ring'")),
        (["networkx:petersn_graph"], ("did you mean 'petersen_graph'",)),
        (["no/graph.edges"], ("topology: no file 'no/graph.edges'",)),
        (["ring", "--weights=metropolitan"], ("did you mean 'metropolis'",)),
        (["ring", "--worker=3"], ("show: unknown argument '--worker=3'", "did you mean '--workers'")),
        (["ring", "--delay.max=3"], ("show: unknown argument '--delay.max=3'",)),
        (["ring", "--topology.degree=3"], ("topology.degree: ring has no such option",)),
        (["ring", "--weights.edge=3"], ("weights.edge: metropolis has no such option",)),
        (["random_regular", "--topology.degree"], ("show: --topology.degree needs a value",)),
        (["hypercube", "--workers=12"], ("hypercube needs a power of two, got 12",)),
        (["ring", "--workers=0"], ("workers: ring needs at least 1 worker, got 0",)),
        (["ring", "--workers=many"], ("--workers", "'many'")),
        (["random_matching", "--weights=lazy"], ("a random sequence brings its own weights",)),
        (["exponential", "--weights=metropolis"], ("weights: metropolis needs an undirected graph",)),
        (["ring", "extra"], ("show: unknown argument 'extra'",)),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    fails(capsys, ["show", "topology", *arguments], *said)


def test_what_cannot_be_shown_or_written_is_one_line(capsys: pytest.CaptureFixture) -> None:
    fails(capsys, ["show", "ring", "ring"], "'ring'", "topology")
    Path("file").write_text("")
    fails(capsys, ["show", "topology", "ring", "--out=file/below"], "out: cannot write", "--out", code=1)


def test_the_list_tells_degree_and_gap_at_16(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "topologies"]) == 0
    out = capsys.readouterr().out
    assert "gap at n = 16" in out
    assert re.search(r"^ring .* 2 +0\.0507 *$", out, re.MULTILINE)
    assert re.search(r"^star .* 15 +0\.0625 *$", out, re.MULTILINE)
    assert re.search(r"^social .* 14 \(n=32\) +[\d.]+ \(n=32\) *$", out, re.MULTILINE)
    assert re.search(r"^disconnected .* 2 +0 *$", out, re.MULTILINE)
    assert all(re.fullmatch(r"-|[\d.]+( \(n=\d+\))?", cell) for name in TOPOLOGIES for cell in glance(name))


def test_what_needs_a_solver_that_is_missing_has_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    sequences.matcha_of.cache_clear()
    assert glance("matcha") == ("-", "-")
    assert glance("ring") == ("2", "0.0507")
