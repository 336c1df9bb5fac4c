"""`dopt show KIND NAME` and the filters of `dopt list`: all that is said is asked of the code, and every example works."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from refusals import refused

from dopt.algorithms import ALGORITHMS, Method
from dopt.algorithms.method import synchronous
from dopt.cli import listing, main, parser, show_plugin, words
from dopt.cli import run as run_command
from dopt.config import accepts
from dopt.config.runs import Runs
from dopt.facts import facts_of
from dopt.report import docstrings
from dopt.report.plugins import Described, described

SHOWN = sorted({where for _, places in show_plugin.KINDS.values() for where in places})
EVERY = [(where, name) for where in SHOWN for name in listing.registry(where)]
TIMES = "worker,read_version,write_version,seconds\n" + "".join(
    f"{i},{m},{m},1.5\n" for m in range(9) for i in range(8)
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path / "cache"))


def without_default(optimizer: Any, mix: None = None, *, learning_rate: Any = None, k: int) -> Method:
    """A method whose option must be given.

    Args:
      k: how often,
        in a line that goes on.
    """
    return Method(optimizer.init, optimizer.update)


@cache
def known(where: str, name: str) -> Described:
    """What is known of a plug-in of dopt's own."""
    return described(where, listing.registry(where)[name])


def shown(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(["show", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return str(out)


def listed(capsys: pytest.CaptureFixture, *words: str) -> set[str]:
    """The names in the table of algorithms."""
    assert main(["list", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0] for line in lines if line and line.split()[0] in ALGORITHMS}


# -- examples ---------------------------------------------------------------------------------------------------------


def test_every_example_is_a_run_that_passes_all_checks() -> None:
    Path("times.csv").write_text(TIMES)  # what a measured law reads
    top, _ = parser.parser()
    for where, name in EVERY:
        _, *given = known(where, name).example
        parsed, rest = top.parse_known_args(given)
        assert run_command.COMMAND.dotted is not None
        asked, _ = run_command._asked_for(parsed, words.dotted("run", rest, run_command.COMMAND.dotted(parsed)))
        run = asked.resolve()
        assert name in {*run.to_dict().values(), run.delay} or (name, run.delay) == ("constant", 4), shlex.join(given)
        if where in ("algorithms", "weights"):  # whose matrix is looked at last
            facts_of(Runs.of([run]))


@pytest.mark.parametrize("name", ["choco_sgd", "delayed_sgd"])
def test_an_example_makes_a_run_that_ends(name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(known("algorithms", name).example[1:]) == 0
    assert "diverged" not in capsys.readouterr().out


# -- what is said -----------------------------------------------------------------------------------------------------


def test_every_option_is_shown_with_its_type_and_default() -> None:
    for where, name in EVERY:
        if where == "optimizers":
            continue
        entry = listing.registry(where)[name]
        rows = {row.name.partition(".")[2]: row for row in known(where, name).options}
        for option in entry.described():
            if option.name in rows:
                assert rows[option.name].kind == option.kind
                assert (rows[option.name].default == "needed") == option.is_needed
        handed_over = {*entry.known} - {*rows}
        assert not handed_over or where == "algorithms", (name, handed_over)


def test_what_is_shown_of_a_method_is_what_its_file_and_the_checks_say(capsys: pytest.CaptureFixture) -> None:
    said = shown(capsys, "method", "gossip_sgd")
    for part in ("X <- W X + u(G)", "algorithm.rounds", "int, 1 to 1000", "Lian et al. 2017", "doubly stochastic"):
        assert part in said
    assert "try: dopt run --algorithm=gossip_sgd" in said
    said = shown(capsys, "method", "extra")
    assert "sgd (extra takes sgd only, its theory needs a linear update)" in said


def test_sizes_of_messages_are_measured() -> None:
    def sends(name: str) -> str:
        return dict(known("algorithms", name).facts)["sends"]

    assert "2 models to each neighbour" in sends("gradient_tracking")
    assert "0.131 models to each neighbour" in sends(
        "choco_sgd"
    )  # a tenth of 1000 numbers, each with its place: 42/320
    assert "at every 10 steps" in sends("local_sgd")
    assert "4 gradients make an update" in sends("k_async_sgd")
    assert all("what its options say" not in sends(name) for name in ALGORITHMS)


def test_a_law_of_both_kinds_is_shown_as_both(capsys: pytest.CaptureFixture) -> None:
    said = shown(capsys, "law", "uniform")
    for part in ("uniform (law of compute times)", "cluster.width", "uniform (law of delays)", "delay.max"):
        assert part in said


def test_an_own_method_is_shown_also_where_an_option_must_be_given() -> None:
    with mock.patch.dict(ALGORITHMS):
        synchronous(source="here")(without_default)
        made = described("algorithms", ALGORITHMS["without_default"])
    (row,) = made.options
    assert row == ("algorithm.k", "int", "needed", "how often, in a line that goes on.")


def test_an_entry_of_a_docstring_may_name_several_options() -> None:
    def f(*, a: int, b: int) -> None:
        """First.

        More of it.

        Args:
          a, b: both.

        Raises:
          InputError: never.
        """

    assert docstrings.options(f) == {"a": "both.", "b": "both."}
    assert docstrings.said(f) == ("First", "More of it.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method", "gosip_sgd"], "method: unknown name 'gosip_sgd'; did you mean 'gossip_sgd'?"),
        (["law", "exponentail"], "law: unknown name 'exponentail'; did you mean 'exponential'?"),
        (["data"], "NAME"),
        (["gossip_sgd"], "unknown name 'gossip_sgd'; write dopt show method gossip_sgd"),
        (["torus"], "unknown name 'torus'; write dopt show topology torus"),
        (["mehtod", "gossip_sgd"], "unknown name 'mehtod'; did you mean 'method'?"),
        (["method", "gossip_sgd", "--topology.degree=3"], "show: unknown argument '--topology.degree=3'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    refused(capsys, ["show", *words], said)


# -- filters ----------------------------------------------------------------------------------------------------------


def test_a_family_lists_its_methods(capsys: pytest.CaptureFixture) -> None:
    for family in listing.FAMILIES:
        want = {name for name, method in ALGORITHMS.items() if method.traits.family == family}
        assert listed(capsys, "algorithms", "--family", family) == want
    assert not {method.traits.family for method in ALGORITHMS.values()} - {*listing.FAMILIES}


def test_who_accepts_delays_and_failing_links_reads_them(capsys: pytest.CaptureFixture) -> None:
    found = listed(capsys, "--accepts", "delay")
    assert found == {name for name, method in ALGORITHMS.items() if method.traits.staleness is not None} - {"relay_sgd"}
    both = listed(capsys, "--accepts=delay,link_loss", "--family=gossip")
    assert {"gossip_sgd", "choco_sgd"} <= both <= found
    assert "extra" not in listed(capsys, "--accepts=optimizer")
    assert listed(capsys, "--accepts=compressor") == {"choco_sgd", "compressed_sgd"}


def test_where_no_method_accepts_all_the_list_says_so(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "--accepts=delay", "--family=synchronous"]) == 0
    assert capsys.readouterr().out == "no synchronous algorithm accepts delay\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--family=gosip"], "family: unknown name 'gosip'; did you mean 'gossip'?"),
        (["--accepts=dely"], "accepts: unknown part of a run 'dely'; did you mean 'delay'?"),
        (["topologies", "--family=gossip"], "--family and --accepts choose among algorithms, got 'topologies'"),
    ],
)
def test_a_filter_that_means_nothing_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    refused(capsys, ["list", *words], said)


def test_every_part_of_a_run_that_can_be_asked_for_is_accepted_by_some_and_not_by_all() -> None:
    for part in accepts.ASKS:
        assert 0 < sum(accepts.accepts(name, part) for name in ALGORITHMS) < len(ALGORITHMS), part


def test_the_example_of_a_topology_makes_a_run_on_it(capsys: pytest.CaptureFixture) -> None:
    said = shown(capsys, "topology", "torus", "--workers=12", "--topology.shape=[3,4]", "--weights=lazy")
    assert "torus (topology)" in said
    assert "topology.shape" in said
    (line,) = re.findall(r"^try: (.*)$", said, re.MULTILINE)
    assert "--algorithm=gossip_sgd --topology=torus --weights=lazy --workers=12" in line
    assert main(shlex.split(line)[1:]) == 0
