"""Sweeps on real clusters that tests start on this machine. `make cluster` runs them; DOPT_REQUIRE=slurm,ray fails where one cannot start."""
