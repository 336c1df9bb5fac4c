"""Damaged inputs of every kind that dopt reads, through its public doors: each is taken, or refused in one line.

`mutate` damages, `doors` are the inputs and where they go in, `run` tries many. `python -m tests.fuzz` runs 20 000 of them
(`make fuzz`), `test_fuzz.py` a thousand. Case i of a seed is the same in every process, so a failure can be made again by its
number.
"""
