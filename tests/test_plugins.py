"""Plug-ins from outside: files and modules that are named, what installed packages offer, and what of them runs stand for."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from refusals import refused

import dopt
from dopt import InputError, plugins
from dopt.cli import main
from dopt.config.identity import PLUGINS
from dopt.sweeps import luggage, spec

RINGS = """
import networkx as nx
import dopt

@dopt.register.topology
def two_rings(workers, *, bridges: int = 1):
    '''Two rings with a few edges between them.'''
    half = workers // 2
    graph = nx.disjoint_union(nx.cycle_graph(half), nx.cycle_graph(workers - half))
    graph.add_edges_from((i, half + i) for i in range(bridges))
    return graph
"""
UNUSED = """
import dopt

@dopt.register.law
def never(*, max: int):
    '''A law that no run asks for.'''
    return [1.0]
"""
RUN = {"algorithm": "gossip_sgd", "problem": "quadratic", "topology": "two_rings", "workers": 8, "steps": 4}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a test registers is forgotten after it, by Python, too; it runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    registries = {id(known): known for _, known in PLUGINS}.values()
    before, modules = [dict(known) for known in registries], set(sys.modules)
    for kept in (plugins._FILES, plugins._noted, plugins.FAILED):
        monkeypatch.setattr(plugins, next(k for k, v in vars(plugins).items() if v is kept), {})
    yield
    for known, entries in zip(registries, before, strict=True):
        known.clear()
        known.update(entries)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def asked(**changes: Any) -> dict[str, Any]:
    """A sweep of one run, or as many as `changes` has values."""
    fields = {**RUN, "learning_rate": 0.1, **changes}
    return {"parameters": {name: spec.choice(value) for name, value in fields.items()}}


def importing(*named: str, **changes: Any) -> dict[str, Any]:
    content = asked(**changes)
    content["parameters"]["imports"] = {"value": list(named)}
    return content


def ids(*named: str, **changes: Any) -> list[str]:
    return spec.parse(importing(*named, **changes)).runs.ids


def forget() -> None:
    """As in a new process."""
    for _, known in PLUGINS:
        for name in [name for name, entry in known.items() if entry.origin != plugins.OWN]:
            del known[name]
    for module in [name for name in sys.modules if name in plugins._FILES]:
        del sys.modules[module]
    plugins._FILES.clear()


def test_a_file_that_a_sweep_imports_is_found_beside_the_sweep(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rings.py").write_text(RINGS)
    (tmp_path / "mine" / "sweep.yaml").write_text(json.dumps(importing("rings.py")))
    (like,) = spec.read(tmp_path / "mine" / "sweep.yaml").runs.templates
    assert like.topology == "two_rings"
    assert like.options["topology.bridges"] == 1
    assert not any("imports" in name for name in like.to_dict())


def test_a_module_is_imported_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").touch()
    (tmp_path / "study" / "rings.py").write_text("from study.near import nothing\n" + RINGS)
    (tmp_path / "study" / "near.py").write_text("nothing = None\n")
    assert len(ids("study.rings")) == 1
    assert plugins.source("study.rings") == (str(tmp_path), "study.rings")


def test_an_id_takes_the_source_of_what_its_run_uses_and_never_a_path(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "other_name.py").write_text(RINGS)
    (tmp_path / "edited.py").write_text(RINGS.replace("range(bridges)", "range(0, bridges)"))
    (tmp_path / "unused.py").write_text(UNUSED)
    found = []
    for named in (["rings.py"], ["moved/other_name.py"], ["rings.py", "unused.py"], ["edited.py"]):
        found.append(ids(*named))
        forget()
    assert found[0] == found[1] == found[2] != found[3]


def test_a_run_that_uses_no_plugin_keeps_its_id_whatever_is_imported(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    assert ids("rings.py", topology="ring") == spec.parse(asked(topology="ring")).runs.ids


def test_one_file_by_two_paths_is_imported_once(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(RINGS + "\nimport sys; sys.counted = getattr(sys, 'counted', 0) + 1\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "rings.py")
    plugins.load(["rings.py", "./rings.py", f"../{tmp_path.name}/rings.py", str(tmp_path / "rings.py")])
    assert vars(sys).pop("counted") == 1


def test_an_edited_file_takes_the_place_of_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    first = ids("rings.py")
    (tmp_path / "rings.py").write_text(RINGS.replace("= 1):", "= 2):"))
    assert ids("rings.py") != first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import dopt\ndef f(:\n", "'mine.py', line 2: SyntaxError: invalid syntax"),
        ("import dopt\n\nx = nobody\n", "'mine.py', line 3: NameError: name 'nobody' is not defined"),
        ("import nobody_has_this\n", "'mine.py', line 1: ModuleNotFoundError: No module named 'nobody_has_this'"),
        ("import sys\nsys.exit(0)\n", "'mine.py', line 2: SystemExit: 0"),
        (
            RINGS.replace("two_rings", "ring"),
            "topology: the name 'ring' is taken already, by dopt; choose another name",
        ),
        (RINGS.replace("workers, *, ", "graph, workers, *, "), "two_rings must take (workers, *, options)"),
        (
            "import dopt\n@dopt.register.method(sends=dopt.algorithms.AllReduce(), wiegh=1)\n"
            "def m(optimizer, mix=None, *, learning_rate=None): ...\n",
            "method: unknown trait 'wiegh'; did you mean 'weighs'?",
        ),
        ("import dopt\n@dopt.register.metric(of='mode')\ndef m(a, b): ...\n", "did you mean 'models'?"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line_with_its_place(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(text)
    refused(capsys, ["list", "data", "--import", "mine.py"], "import: 'mine.py', line ", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--import", "nowhere.py"], "import: no file 'nowhere.py' in "),
        (["--import", "no.where"], "import: no module 'no.where' is installed"),
        (["--import", "no where"], "import: must be a file that ends with .py, or a module's name"),
        (["--import"], "import: needs a file or a module"),
        (["--improt=a.py"], "did you mean '--import'?"),
    ],
)
def test_what_is_not_there_to_import_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    refused(capsys, ["list", "data", *words], said)


def test_two_files_of_one_name_are_refused_by_the_one_that_comes_second(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "one.py").write_text(RINGS)
    (tmp_path / "two.py").write_text("# another one\n" + RINGS)
    refused(capsys, ["list", "data", "--import=one.py,two.py"], "'two.py', line ", "is taken already, by one.py")


@pytest.mark.parametrize("given", [{"values": ["a.py"]}, {"value": 3}, {"min": 1}])
def test_imports_that_are_no_list_of_files_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^sweep\.parameters\.imports: must "):
        spec.parse({"parameters": {**asked()["parameters"], "imports": given}})
    with pytest.raises(InputError, match=r"^imports: is not a parameter of a run"):
        spec.parse(asked(), changes={"imports": "a.py"})


def test_the_list_says_where_a_plugin_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    (tmp_path / "unused.py").write_text(UNUSED)
    monkeypatch.setenv(plugins.VARIABLE, "unused.py")
    assert main(["list", "delays"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith(("never", "geometric"))] == [
        "dopt",
        "unused.py",
    ]
    monkeypatch.delenv(plugins.VARIABLE)


def test_a_bug_of_a_plugin_is_one_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "rings.py").write_text(RINGS.replace("workers // 2", "workers // nobody"))
    words = [f"--{name}={value}" for name, value in {**RUN, "learning_rate": 0.1}.items()]
    refused(capsys, ["run", *words, "--import=rings.py"], "'rings.py', line 8: NameError: name 'nobody' is not defined")
    assert main(["list", "topologies", "--import=rings.py"]) == 0
    out, err = capsys.readouterr()
    assert "two_rings" in out
    assert err == "dopt: topology two_rings: 'rings.py', line 8: NameError: name 'nobody' is not defined\n"


# -- what is installed ------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that offer plug-ins: one works, one does not."""
    site = tmp_path / "site"
    for name, text in (("rings_pkg", RINGS), ("broken_pkg", "raise RuntimeError('of its own')\n")):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
        meta = site / f"{name}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (meta / "entry_points.txt").write_text(f"[dopt.plugins]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    monkeypatch.setattr(plugins._offer, "is_open", True)
    return site


def test_what_is_installed_is_imported_when_a_name_is_asked_for_that_nobody_has(installed: Path) -> None:
    assert len(spec.parse(asked(topology="ring")).runs) == 1
    assert "rings_pkg" not in sys.modules
    (like,) = spec.parse(asked(**{"topology.bridges": 2})).runs.templates
    assert like.options["topology.bridges"] == 2
    assert "code of topology" in like.digests


def test_an_option_that_only_an_installed_plugin_reads_is_dropped_where_it_is_not_read(installed: Path) -> None:
    found = spec.parse(asked(topology=["ring", "two_rings"], **{"topology.bridges": 2})).runs.templates
    assert [like.options.get("topology.bridges") for like in found] == [None, 2]


def test_an_installed_plugin_that_cannot_be_imported_breaks_nothing_else(
    installed: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["list", "topologies"]) == 0
    out, err = capsys.readouterr()
    assert "two_rings" in out
    assert err.count("\n") == 1
    assert "plug-in broken_pkg (broken_pkg): " in err
    assert "line 1: RuntimeError: of its own; it is left out" in err
    refused(capsys, ["show", "method", "nobody"], "method: unknown name 'nobody'")
    with pytest.raises(InputError, match=r"unknown name 'nobody'.*broken_pkg.*of its own"):
        dopt.topology.TOPOLOGIES["nobody"]


# -- other processes --------------------------------------------------------------------------------------------------


def test_helpers_are_told_where_plugins_come_from(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").write_text(UNUSED)
    (tmp_path / "rings.py").write_text(RINGS)
    plugins.load(["rings.py", "study"])
    named, folders = plugins.for_helpers()
    assert named == {plugins.VARIABLE: f"{tmp_path / 'rings.py'},study"}
    assert folders == [str(tmp_path)]


def test_what_travels_has_the_files_of_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    found = luggage.packed(spec.parse(importing("rings.py")).runs.templates)
    assert (list(found.modules), list(found.code)) == (["rings.py"], ["rings.py"])


def test_a_run_is_made_again_by_its_id_with_the_plugins_of_its_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    (tmp_path / "sweep.yaml").write_text(json.dumps(importing("rings.py", workers=4)))
    assert main(["sweep", "sweep.yaml", "--results=results/mine"]) == 0
    (found,) = dopt.load("results/mine").runs["id"]
    forget()
    capsys.readouterr()
    assert main(["run", "--id", found, "--dry-run"]) == 0
    assert "dopt: imported rings.py of " in capsys.readouterr().err
    forget()
    (tmp_path / "rings.py").unlink()
    refused(capsys, ["run", "--id", found], "dopt: import: no file ")


def test_what_is_launched_imports_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "rings.py").write_text(RINGS)
    (tmp_path / "unused.py").write_text(UNUSED)
    (tmp_path / "sweep.yaml").write_text(json.dumps(importing("rings.py")))
    assert main(["launch", "slurm", "sweep.yaml", "--array=2", "--print", "--import=unused.py"]) == 0
    assert f"--import={tmp_path / 'unused.py'}" in capsys.readouterr().out
    words = ["--image=x", "--claim=y", "--completions=2", "--import", "unused.py"]
    assert main(["launch", "kubernetes", "sweep.yaml", *words]) == 0
    config, job = yaml.safe_load_all(capsys.readouterr().out)
    pod = job["spec"]["template"]["spec"]
    items = {item["key"]: item["path"] for item in pod["volumes"][0]["configMap"]["items"]}
    assert {items[key]: text for key, text in config["data"].items() if key != "sweep"} == {
        "rings.py": RINGS,
        "unused.py": UNUSED,
    }
    assert "--import=/sweep/unused.py" in pod["containers"][0]["command"]
