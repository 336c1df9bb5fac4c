"""Faults that are really caused: processes killed in every phase, full disks, dead peers. `python -m tests.faults` prints a table."""
