"""The version, where packaging can read it without importing anything, and whatever is installed."""

VERSION = "0.1.0"


def installed(package: str) -> str | None:
    """The version of an installed package; None: it is missing. dopt itself need not be installed, a checkout will do."""
    from importlib.metadata import PackageNotFoundError, version

    if package == "dopt":
        return VERSION
    try:
        return version(package)
    except PackageNotFoundError:
        return None
