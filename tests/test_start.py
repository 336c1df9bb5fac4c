"""Starting: nothing is imported before it is used, a function keeps its name, and a checkout needs no installation."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dopt
import dopt.config
from dopt import extras, watch
from dopt.types import InputError
from dopt.version import VERSION, described, installed

ROOT = Path(__file__).parents[1]
HEAVY = {"flax", "jax", "matplotlib", "networkx", "optax", "orbax", "pandas", "scipy", "sklearn", "wandb", "xarray"}
HEAVY |= {"numpy", "rich"}


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python, with this dopt."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=60)


def imported(code: str) -> set[str]:
    """What of HEAVY is imported after this code."""
    done = process("-c", f"{code}\nimport sys\nprint(*sys.modules.keys() & {HEAVY!r})")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_dopt_imports_nothing_that_takes_time() -> None:
    assert imported("import dopt; dopt.Run; dopt.InputError; dir(dopt)") == set()


def test_data_schedules_and_theory_need_numpy_alone() -> None:
    assert imported("import dopt; dopt.data, dopt.schedule, dopt.theory") == {"numpy"}


def test_a_run_needs_neither_tables_nor_pictures_nor_networks() -> None:
    assert imported("import dopt; dopt.run, dopt.problems") == {"jax", "networkx", "numpy", "optax", "scipy"}


def test_help_version_and_what_is_refused_import_nothing_that_takes_time() -> None:
    words = [
        ["--help"],
        ["--version"],
        *(
            [c, "--help"]
            for c in ("sweep", "merge", "run", "list", "plot", "show", "launch", "status", "watch", "figures", "doctor")
        ),
    ]
    words += [
        ["run", "--steps"],
        ["run", "--step=3"],
        ["run", "--workers=2"],
        ["sweep"],
        ["sweep", "no.yaml"],
        ["lsit"],
        ["list", "methods"],
    ]
    words += [["merge", "out"], ["sweep", "no.yaml", "--shard=0/3"]]
    words += [["launch", "slurm", "no.yaml", "--array=0"], ["launch", "kubernetes"]]
    words += [["status"], ["watch", "no", "--every=0"]]
    words += [["show", "schedule"], ["figures", "--jobs=0"], ["run", "--seed=1", "--seed=2"]]
    code = f"""
from dopt.cli import main
for words in {words!r}:
    try:
        assert main(words) == 2, words
    except SystemExit as end:  # --help and --version
        assert not end.code, words
print()
"""
    assert imported(code) == set()


def test_it_starts_from_a_checkout_where_nothing_is_installed() -> None:
    done = process("-S", "-m", "dopt", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dopt {described()}\n", "")


def test_dopt_knows_its_version_without_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", none)
    assert (installed("dopt"), installed("numpy")) == (VERSION, None)


@pytest.mark.parametrize("package", [dopt, dopt.config])
def test_every_name_is_there_and_what_types_say_is_what_runs(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    said = {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert said == set(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for node in typed.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            found = getattr(package, alias.name)
            if isinstance(found, ModuleType):
                assert found is sys.modules[f"{node.module}.{alias.name}"]
            else:
                assert found is getattr(importlib.import_module(str(node.module)), alias.name)


def test_a_function_keeps_its_name_whatever_modules_are_imported() -> None:
    for package, name in ((dopt, "run"), (dopt, "sweep"), (dopt.config, "identity")):
        setattr(package, name, ModuleType(f"{package.__name__}.{name}"))  # as the import of a module of that name does
        assert isinstance(getattr(package, name), FunctionType)


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'dopt' has no attribute 'rum'"):
        _ = dopt.rum  # type: ignore[attr-defined]
    assert not hasattr(dopt, "_private")


def test_where_jax_is_not_imported_no_settings_of_its_are_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jax")
    assert watch.in_thread(lambda: "jax" in sys.modules) is False


def brought(names: Iterable[str], known: set[str]) -> set[str]:
    """The distributions of these names, and all that they bring without extras."""
    for name in map(canonicalize_name, names):
        if name not in known:
            known.add(name)
            with suppress(importlib.metadata.PackageNotFoundError):
                required = map(Requirement, importlib.metadata.requires(name) or ())
                brought([r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})], known)
    return known


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# packages of extras are absent, also where another package would bring them
WITHOUT = """
import sys
absent = set({absent!r})
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
"""
OPTIONAL = {module.partition(".")[0] for module, _ in extras.EXTRAS.values()}


def test_each_optional_package_is_in_the_extra_that_is_named_where_it_is_missing_and_in_all() -> None:
    brings = {
        name: {Requirement(each).name for each in listed} for name, listed in PROJECT["optional-dependencies"].items()
    }
    (all_of_them,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    for package, (_, extra) in extras.EXTRAS.items():
        assert package in brings[extra]
        assert extra in all_of_them.extras
    assert all_of_them.extras == brings.keys() - {"all", "cuda", "dev", "tpu"}


def test_a_missing_package_is_named_with_its_extra_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.lacking("bokeh", "report: it") == ""
    monkeypatch.setitem(extras.EXTRAS, "bokeh", ("bokehh.plotting", "report"))
    with pytest.raises(
        InputError, match=r"^report: it needs bokeh, which is not installed; pip install 'dopt\[report\]'$"
    ):
        extras.need("bokeh", "report: it")


def test_where_no_extra_is_installed_all_modules_are_imported_and_a_sweep_says_that_it_draws_nothing(
    tmp_path: Path,
) -> None:
    there = brought([Requirement(each).name for each in PROJECT["dependencies"]], {"dopt", "setuptools", "pip"})
    owners = importlib.metadata.packages_distributions()
    absent = {name for name, own in owners.items() if not there & set(map(canonicalize_name, own))}
    assert {"ray", "filelock", "cvxpy", "kubernetes_validate", "pytest"} <= absent
    code = f"""
{WITHOUT.format(absent=sorted(absent | OPTIONAL))}
import importlib, pkgutil
import dopt
for module in pkgutil.walk_packages(dopt.__path__, "dopt."):
    if module.name != "dopt.__main__":
        importlib.import_module(module.name)
print("imported", file=sys.stderr)
words = ["--set=steps=10", "--set=workers=4", "--set=topology=ring", "--set=delay=0", "--set=seed=0", "--set=learning_rate=0.1"]
sys.exit(dopt.cli.main(["sweep", "connectivity_delay", "--results={tmp_path}", "--wandb=off", *words]))
"""
    done = process("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("imported\n")
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    assert "picture: it needs matplotlib, which is not installed; pip install 'dopt[figures]'" in lines
    assert (tmp_path / "table.csv").is_file()
