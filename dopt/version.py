"""The versions of the package, of its engine and of a run's fields, where packaging can read them without importing anything, and whatever is installed."""

from pathlib import Path

VERSION = "0.1.0"
# raised by a change that may change the last bits of a result, or what a checkpoint holds, so that a folder can say who made what
ENGINE = 2
SCHEMA = 2  # of a run's fields and their meaning: part of its identity

HERE = Path(__file__).resolve().parent
BUILT = "COMMIT"  # the file beside this one in which a wheel keeps the commit that it was built from


def installed(package: str) -> str | None:
    """The version of an installed package; None: it is missing. dopt itself need not be installed, a checkout will do."""
    from importlib.metadata import PackageNotFoundError, version

    if package == "dopt":
        return VERSION
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that this code is of, with "+" where the checkout has changes; None: nobody knows."""
    import subprocess

    if not (HERE.parent / ".git").exists():  # not a checkout: an enclosing one, if any, is not ours
        kept = HERE / BUILT
        return kept.read_text().strip() or None if kept.is_file() else None
    asked = ("git", "--no-optional-locks", "-C", HERE.parent, "describe", "--always", "--dirty=+", "--exclude=*")
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):  # no git, or one that does not read this checkout
        return None


def described() -> str:
    """The version, and the commit where it is known."""
    found = commit()
    return f"{VERSION} ({found})" if found else VERSION
