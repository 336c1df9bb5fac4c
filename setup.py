"""What pyproject.toml cannot say: sweeps and figures become part of the package, and a wheel knows the commit that it is built from."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SHIPPED = ("benchmarks", "paper_figs")


class BuildPy(build_py):
    """Leaves the commit beside the code, which in a checkout git is asked for."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        version = runpy.run_path("dopt/version.py")
        (Path(self.build_lib) / "dopt" / version["BUILT"]).write_text(f"{version['commit']() or ''}\n")


setup(
    packages=[*find_packages(include=["dopt*"]), *(f"dopt._shipped.{name}" for name in SHIPPED)],
    package_dir={f"dopt._shipped.{name}": name for name in SHIPPED},
    cmdclass={"build_py": BuildPy},
)
