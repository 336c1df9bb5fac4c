"""What stands in the wrong place, or under another name, is refused in one line that says what to write; and what is shown is short."""

from __future__ import annotations

import pydoc
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from refusals import refused

import dopt
from dopt import InputError, Run
from dopt.algorithms import ALGORITHMS
from dopt.cli.listing import KINDS
from dopt.compression import COMPRESSORS
from dopt.config.run import PREFIXES
from dopt.problems import PROBLEMS
from dopt.registry import did_you_mean
from dopt.report import docstrings
from dopt.sweeps import spec
from dopt.synonyms import SYNONYMS
from dopt.topology import TOPOLOGIES

RUN = Run(
    algorithm="gossip_sgd", workers=4, learning_rate=0.1, steps=3, problem="quadratic", options={"problem.dim": 2}
)
FIELDS = [f.name for f in fields(Run) if f.name != "options"]
NAMES = {*KINDS, *FIELDS, *TOPOLOGIES, *ALGORITHMS, *PROBLEMS, *COMPRESSORS}
STORE = Path(__file__).parent / "data" / "stores" / "format-4"


def said(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# -- other words ------------------------------------------------------------------------------------------------------


def test_every_synonym_leads_to_a_name_that_there_is() -> None:
    for word, name in SYNONYMS.items():
        assert name in NAMES or name.split(".")[0] in PREFIXES, word
        assert word not in FIELDS, word


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr", "learning_rate"),
        ("bs", "batch_size"),
        ("n", "workers"),
        ("tau", "delay"),
        ("momentum", "optimizer.momentum"),
    ],
)
def test_a_short_name_finds_the_field_wherever_it_is_given(
    word: str, meant: str, capsys: pytest.CaptureFixture
) -> None:
    hint = f"did you mean {meant!r}?"
    assert hint in said(lambda: Run(**{word: 3}))
    assert hint in said(lambda: Run.from_dict({word: 3}))
    assert hint in said(lambda: spec.parse({"parameters": {word: {"value": 3}}}))
    refused(capsys, ["run", f"--{word}=3"], f"run: unknown argument '--{word}=3'; did you mean '--{meant}'?")
    refused(capsys, ["run", f"--{word}", "3"], f"did you mean '--{meant}'?")


def test_names_of_other_libraries_and_ends_of_names_find_ours() -> None:
    assert did_you_mean("ER", TOPOLOGIES) == "; did you mean 'erdos_renyi'?"
    assert did_you_mean("fedavg", ALGORITHMS) == "; did you mean 'local_sgd'?"
    assert did_you_mean("muon", ["adam", "contrib.muon"]) == "; did you mean 'contrib.muon'?"
    assert did_you_mean("lr", ["edge"]) == "; known: edge"  # no other word for what is not there


def test_a_dotted_name_is_an_option_and_no_field() -> None:
    line = said(lambda: Run(**{"topology.degree": 4}))
    assert line == "topology.degree: a Run has no such field; write options={'topology.degree': ...}, or Run.from_dict"


# -- other types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: dopt.run(RUN, problem="logistic"),
            "problem: must be a dopt.Problem, got 'logistic' (str); for what has a name, write Run(problem='logistic', ...)",
        ),
        (
            lambda: dopt.run(RUN, graph="ring"),
            "graph: must be a networkx graph or a matrix W, got 'ring' (str); for what has a name, write Run(topology='ring', ...)",
        ),
        (lambda: dopt.run(RUN, problem={"name": "logistic"}), "problem: must be a dopt.Problem, got {'name'"),
        (lambda: dopt.run({"algorithm": "gossip_sgd"}), "(dict); write dopt.run(dopt.Run.from_dict({...}))"),
        (lambda: dopt.run("gossip_sgd"), "run: must be a dopt.Run, got 'gossip_sgd' (str); write dopt.run(dopt.Run("),
        (lambda: dopt.sweep(RUN), "sweep: must be a file, or its content as a dict, got Run("),
        (lambda: dopt.load(RUN), "results: must be a path, got Run("),
        (lambda: replace(RUN, topology=nx.cycle_graph(4)).resolve(), "hand it over as dopt.run(run, graph=...)"),
        (lambda: replace(RUN, problem={"dim": 2}).resolve(), 'options are dotted, as "problem.dim"'),
        (lambda: replace(RUN, options=None).resolve(), "options: must map dotted names to values, got None"),
    ],
)
def test_an_object_or_a_name_in_the_wrong_place_is_one_line_that_says_what_to_write(
    call: Callable[[], object], line: str
) -> None:
    assert line in said(call)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_help_of_a_run_and_of_its_command_hold_the_text_of_every_field(capsys: pytest.CaptureFixture) -> None:
    texts = docstrings.options(Run, "Attributes:")
    assert list(texts) == [*FIELDS, "options"]
    page = " ".join(pydoc.render_doc(Run, renderer=pydoc.plaintext).replace("|", " ").split())
    with pytest.raises(SystemExit):
        dopt_main(["run", "--help"])
    command = " ".join(capsys.readouterr().out.split())
    for name in FIELDS:
        assert len(texts[name]) > 10, name
        assert " ".join(texts[name].split()) in page, name
        assert texts[name].rstrip(".").split(" (")[0] in command, name


def dopt_main(words: list[str]) -> Any:
    from dopt.cli import main

    return main(words)


def test_results_are_shown_in_three_lines() -> None:
    first, varied, metric = repr(dopt.load(STORE)).splitlines()
    assert first.startswith(dopt.load(STORE).name)
    assert "runs" in first
    assert varied.startswith("  varied: ")
    assert metric.startswith("  metric: loss")


def test_a_result_is_shown_in_a_line() -> None:
    line = repr(dopt.run(RUN))
    assert "\n" not in line
    assert "gossip_sgd of 4 workers on quadratic, at last step 3" in line
