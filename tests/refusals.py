"""How the command refuses bad input: exit code 2 (1 where the machine refuses), one line on stderr, nothing else."""

from __future__ import annotations

import pytest

from dopt.cli import main


def refused(capsys: pytest.CaptureFixture, arguments: list[str], *said: str, code: int = 2) -> None:
    """The line has all that is `said`."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dopt: ")
    assert err.count("\n") == 1, err
    for part in said:
        assert part in err
