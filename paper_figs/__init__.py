"""One file per figure: the sweep it needs, the drawing, and the claims it checks."""
