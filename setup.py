"""What pyproject.toml cannot say: sweeps and figures become part of the package, and what is built knows the commit that it is built from."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SHIPPED = ("benchmarks", "paper_figs")
DATA = ("dopt.page.static", "dopt.templates")  # folders of files that nobody imports


def keep_commit(root: str) -> None:
    """Write the commit beside the code in `root`, where the checkout, which knows it, will not be."""
    version = runpy.run_path("dopt/version.py")
    (Path(root) / "dopt" / version["BUILT"]).write_text(f"{version['commit']() or ''}\n")


class BuildPy(build_py):
    """Of a wheel; an editable install stays a checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            keep_commit(self.build_lib)


class Sdist(sdist):
    """Of the sources, of which a wheel may be built in turn."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        keep_commit(base_dir)


setup(
    packages=[*find_packages(include=["dopt*"]), *(f"dopt._shipped.{name}" for name in SHIPPED), *DATA],
    package_dir={f"dopt._shipped.{name}": name for name in SHIPPED},
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
