"""Cause all faults, and print a table: fault, how often it was tried, how often what is promised held."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
HELD, SKIPPED = "held", "skipped"
# what is caused -> beginnings of the tests that cause it
FAULTS = {
    "SIGINT and SIGTERM in imports, planning, compilation, computation and writing": (
        "faults/test_signals.py::test_a_signal_ends_the_command_at_once",
    ),
    "Ctrl-C in a Python session that compiles or computes": ("faults/test_signals.py::test_in_python",),
    "helpers of `dopt figures` whose parent ends": ("faults/test_signals.py::test_helpers_end",),
    "helpers of `dopt sweep`, or their parent, killed or interrupted": ("faults/test_helpers.py",),
    "killed while it computes": (
        "test_store.py::test_a_killed_sweep_goes_on",
        "test_checkpoints.py::test_a_killed_command_goes_on",
    ),
    "killed while it writes": ("faults/test_signals.py::test_a_sweep_that_was_ended_while_it_wrote",),
    "a growing sweep, killed at fifty random moments": ("faults/test_growing.py",),
    "two sweeps into one folder": ("test_store.py::test_two_sweeps_into_one_folder",),
    "a full disk": ("faults/test_disks.py::test_a_full_disk", "test_tracking.py::test_a_full_disk"),
    "a folder that cannot be written": (
        "faults/test_disks.py::test_a_finished_folder",
        "test_tracking.py::test_a_folder_that_cannot_be_written",
    ),
    "two hosts into one folder, their clocks hours apart, one of them killed or stopped": ("faults/test_two_hosts.py",),
    "a file system without locks, or on which nothing can be claimed": ("faults/test_disks.py::test_a_file_system",),
    "names that are too long, or no text in this locale": (
        "faults/test_disks.py::test_a_name_that_is_too_long",
        "faults/test_disks.py::test_in_the_c_locale",
    ),
    "no memory left": ("faults/test_memory_ends.py",),
    "bits flipped, files cut or gone": (
        "test_store.py::test_a_damaged_file",
        "test_plan.py::test_no_bit_of_a_plan_can_be_flipped",
        "test_checkpoints.py::test_a_damaged_checkpoint",
    ),
    "slabs and plans of another sweep, edited plans": (
        "test_plan.py::test_a_slab",
        "test_plan.py::test_a_table_of_other_runs",
        "test_plan.py::test_an_edited_row",
        "test_plan.py::test_a_folder_without_its_plan",
    ),
    "a W&B service that is dead, silent or killed": (
        "test_tracking.py::test_no_network",
        "test_tracking.py::test_a_server_that",
        "test_tracking.py::test_runs_of_a_killed_service",
    ),
    "processes of one run that differ, or of which one refuses": (
        "faults/test_peers.py::test_processes_that_differ",
        "faults/test_peers.py::test_where_one_refuses",
    ),
    "a process of one run that dies": (
        "faults/test_peers.py::test_a_dead_process",
        "faults/test_peers.py::test_a_signal_to_one",
        "test_hosts.py::test_the_death",
        "test_hosts.py::test_who_finds_nobody",
    ),
}


class Outcomes:
    """A plug-in of pytest that keeps the tests of faults, and counts what came of them."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {fault: Counter() for fault in FAULTS}

    @staticmethod
    def fault(test: str) -> str | None:
        """What a test causes, if it is a fault."""
        name = test.removeprefix("tests/")
        return next((fault for fault, begins in FAULTS.items() if name.startswith(begins)), None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        there = [item.nodeid.removeprefix("tests/") for item in items]
        for begin in (begin for begins in FAULTS.values() for begin in begins):
            if not any(name.startswith(begin) for name in there):
                raise pytest.UsageError(f"no test begins with {begin}")
        items[:] = [item for item in items if self.fault(item.nodeid)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        fault = self.fault(report.nodeid)
        if fault is None or (report.when != "call" and report.passed):
            return
        self.counts[fault][{"passed": HELD, "skipped": SKIPPED}.get(report.outcome, "failed")] += 1

    def table(self) -> str:
        """Markdown."""
        rows = [("fault", "tried", "held")]
        for fault, count in self.counts.items():
            left = f" ({count[SKIPPED]} could not be caused here)" if count[SKIPPED] else ""
            rows.append((fault, str(count.total() - count[SKIPPED]) + left, str(count[HELD])))
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---|---|---|", *lines[1:]])


def main(options: list[str]) -> int:
    """0 where all held. Options are pytest's."""
    os.chdir(TESTS.parent)
    outcomes = Outcomes()
    files = sorted({str(TESTS / begin.partition("::")[0]) for begins in FAULTS.values() for begin in begins})
    code = pytest.main(["-m", "slow or not slow", "-p", "no:cacheprovider", *options, *files], plugins=[outcomes])
    print(outcomes.table())
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
