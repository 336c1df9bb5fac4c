"""Data is never code, and a name is text: no file beside a sweep is run, no name leaves its folder or steers a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from dopt import text
from dopt.cli import main
from dopt.figures import files as figures
from dopt.report.terminal import table
from dopt.sweeps import spec
from dopt.sweeps.live import PlainConsole

PARAMETERS = spec.grid(
    {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "problem": "consensus", "steps": 10}
)
HOSTILE = "[bold red]x[/] \x1b[31m\x1b]0;y\x07 :smile: \u202e \x9b2J"
FIGURE = """from pathlib import Path
Path("executed").touch()
SWEEPS = {"main": "benchmarks/fig.yaml"}
FULL = {}
def table(results): return results["main"].runs[["id"]]
def draw(results):
    import matplotlib.pyplot as plt
    return plt.figure()
def claims(results): return []
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as dopt's own, whose figure file leaves a mark when it is executed."""
    for folder in ("benchmarks", "paper_figs", "none"):
        (tmp_path / folder).mkdir()
    (tmp_path / "paper_figs" / "fig.py").write_text(FIGURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep_file(project: Path, name: str) -> str:
    path = project / "benchmarks" / "fig.yaml"
    path.write_text(yaml.safe_dump({"name": name, "parameters": PARAMETERS}, allow_unicode=True))
    return str(path)


def test_no_figure_file_is_executed_that_the_user_did_not_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(figures, "shipped", lambda: project / "none")
    file = sweep_file(project, "fig")
    assert main(["sweep", file, "--wandb", "off"]) == 0
    assert main(["run", "--id", "0123456789abcdef"]) == 2
    assert main(["figures"]) == 2
    assert not (project / "executed").exists()
    assert main(["sweep", file, "--wandb", "off", "--figures", "paper_figs"]) == 0
    assert (project / "executed").exists()
    assert (project / "results" / "fig" / "fig.png").exists()
    capsys.readouterr()
    assert main(["sweep", file, "--wandb", "off", "--figures", "none", "--results", "new"]) == 2
    assert capsys.readouterr() == ("", "dopt: figures: no figure files in 'none'\n")
    assert not (project / "new").exists()


def test_the_shipped_figures_are_those_of_this_repository() -> None:
    assert figures.shipped() == Path(__file__).parents[1] / "paper_figs"


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", HOSTILE, ".."])
def test_a_name_stays_in_its_folder_and_is_shown_as_text(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(figures, "shipped", lambda: project / "paper_figs")
    before = set(project.parent.iterdir())
    file = sweep_file(project, name)
    assert main(["sweep", file, "--wandb", "off"]) == 0
    out = capsys.readouterr().out
    assert text.shown(name) in " ".join(out.split("\n"))
    assert not set(out) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert [path.parent for path in project.rglob("plans")] == [next((project / "results").iterdir())]
    assert set(project.parent.iterdir()) == before
    assert not (project / "executed").exists()


def test_an_error_line_shows_what_it_quotes_as_text(project: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments in (["sweep", f"{HOSTILE}.yaml"], ["list", HOSTILE], ["run", f"--{HOSTILE}=3"], [HOSTILE]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert not set(err) & {"\x1b", "\x07", "\u202e", "\x9b"}


def test_a_table_shows_markup_and_controls_as_text() -> None:
    console = PlainConsole(width=200)
    console.file = io.StringIO()
    console.print(table(HOSTILE, [HOSTILE], [[HOSTILE]]))
    console.print(HOSTILE, "\udcff")
    said = console.file.getvalue()
    assert said.count(text.shown(HOSTILE)) == 4
    assert r"\udcff" in said


def test_a_file_that_is_no_figure_is_refused_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(figures, "shipped", lambda: project / "none")
    (project / "paper_figs" / "fig.py").write_text("SWEEPS = {}\n")
    for arguments in (
        ["run", "--id", "0123456789abcdef", "--figures", "paper_figs"],
        ["figures", "--folder", "paper_figs"],
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert (
            err
            == "dopt: figures: 'paper_figs/fig.py' is not a figure file, since it lacks table, draw, claims; add them\n"
        )
