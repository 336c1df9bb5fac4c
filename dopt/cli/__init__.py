"""The command `dopt`, one file a command: sweep, run, list, show, launch, status, watch, figures, doctor. What they need is imported when they run."""

from dopt.cli.main import main

__all__ = ["main"]
