"""The versions of the package, of its engine and of a run's fields, where packaging can read them without importing anything, and whatever is installed."""

VERSION = "0.1.0"
# raised by a change that may change the last bits of a result, or what a checkpoint holds, so that a folder can say who made what
ENGINE = 2
SCHEMA = 2  # of a run's fields and their meaning: part of its identity


def installed(package: str) -> str | None:
    """The version of an installed package; None: it is missing. dopt itself need not be installed, a checkout will do."""
    from importlib.metadata import PackageNotFoundError, version

    if package == "dopt":
        return VERSION
    try:
        return version(package)
    except PackageNotFoundError:
        return None
