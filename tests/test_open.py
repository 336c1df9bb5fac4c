"""What the files say that others read first: how to cite dopt, how to add to it, which checks run where."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from dopt import version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def pinned(package: str) -> set[str]:
    """The versions of it that `make` installs."""
    return set(re.findall(rf"^{package}==([^;\s]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def test_the_citation_has_what_the_format_asks_for_and_names_this_version_and_licence() -> None:
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == version.VERSION
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    assert all(author["name"] for author in CITATION["authors"])


def test_the_licence_is_the_whole_text_of_the_one_that_is_named() -> None:
    (file,) = PROJECT["license-files"]
    text = (ROOT / file).read_text()
    assert "Apache License\n                           Version 2.0" in text
    assert (
        text.index("1. Definitions.") < text.index("9. Accepting Warranty") < text.index("END OF TERMS AND CONDITIONS")
    )


def test_a_commit_hook_checks_with_the_version_that_make_installs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["rev"].removeprefix("v")} == pinned("ruff")
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]


def test_the_public_checks_take_every_python_from_the_oldest_on() -> None:
    job = yaml.safe_load(WORKFLOW)["jobs"]["test"]
    assert f">={job['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("text", [CONTRIBUTING, WORKFLOW], ids=["CONTRIBUTING", "ci.yml"])
def test_the_targets_that_are_named_are_targets_of_make(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {word for line in re.findall(r"\bmake ((?:[a-z]+ ?)+)", text) for word in line.split()}
    assert "test" in named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_what_is_said_of_adding_is_short_and_of_files_and_decorators_that_are_there() -> None:
    assert len(CONTRIBUTING.splitlines()) <= 80
    code = "\n".join(path.read_text() for path in (ROOT / "dopt").rglob("*.py"))
    for name in re.findall(
        r"`(?:\.venv/bin/python -m pytest )?([\w./]+/[\w./]*)`", CONTRIBUTING.replace("FAMILY/", "")
    ):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^)#]+)\)", CONTRIBUTING):
        assert (ROOT / target).exists(), target
    for decorator in re.findall(r"`@([\w.]+)\(", CONTRIBUTING):
        assert f"@{decorator}(" in code, decorator


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_knows_its_commit_and_says_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "HERE", tmp_path / "dopt")
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    commit = version.commit()
    assert commit is not None
    assert len(commit) >= 7
    assert git(tmp_path, "rev-parse", "HEAD").startswith(commit)
    assert version.described() == f"{version.VERSION} ({commit})"
    (tmp_path / "file").write_text("two")
    assert version.commit() == f"{commit}+"


def test_what_is_no_checkout_knows_the_commit_of_its_wheel_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")  # an environment may lie within somebody's repository
    here = tmp_path / "site-packages" / "dopt"
    here.mkdir(parents=True)
    monkeypatch.setattr(version, "HERE", here)
    assert version.described() == version.VERSION
    (here / version.BUILT).write_text("0123abc\n")
    assert version.commit() == "0123abc"


def test_where_git_is_not_the_version_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere")
    monkeypatch.setattr(version, "HERE", tmp_path / "dopt")
    assert version.commit() is None
    monkeypatch.setenv("PATH", "")
    assert version.described() == version.VERSION
