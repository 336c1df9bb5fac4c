"""One sweep on many machines, by what hands out machines: `slurm` and `kubernetes`, one file each, and how many can `share` it."""
