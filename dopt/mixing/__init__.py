"""Graph -> mixing matrix W (`rules`), its spectrum (`spectrum`), and W -> Mix, what runs on workers (`mix`)."""

from dopt.mixing.mix import Dense, Mix, Neighbours, form, mix
from dopt.mixing.rules import WEIGHTS, as_matrix, default_rule, read, weights
from dopt.mixing.spectrum import check, gap_kind, is_connected, is_stochastic, spectral_gap

__all__ = [
    "WEIGHTS",
    "Dense",
    "Mix",
    "Neighbours",
    "as_matrix",
    "check",
    "default_rule",
    "form",
    "gap_kind",
    "is_connected",
    "is_stochastic",
    "mix",
    "read",
    "spectral_gap",
    "weights",
]
