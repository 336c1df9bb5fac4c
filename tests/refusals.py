"""How the command refuses bad input: exit code 2, one line on stderr, nothing else."""

from __future__ import annotations

import pytest

from dopt.cli import main


def refused(capsys: pytest.CaptureFixture, arguments: list[str], *said: str) -> None:
    """The line has all that is `said`."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dopt: ")
    assert err.count("\n") == 1, err
    for part in said:
        assert part in err
