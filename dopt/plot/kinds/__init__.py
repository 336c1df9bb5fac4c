"""One file for each kind of picture; `dopt.plot.kind` finds them by their names."""
