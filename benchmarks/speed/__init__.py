"""How fast dopt is: its engine against hand-written JAX and vectorised NumPy, in one process, as ratios.

`python -m benchmarks.speed` prints a table and writes a JSON file; see `--help`.
"""
