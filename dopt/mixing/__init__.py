"""Graph -> mixing matrix W (`rules`), its spectrum (`spectrum`), and W -> Mix, what runs on workers.

W's numbers as arrays are `forms`, what workers read of each other `received`, links that fail `failing`; `displacement`
puts them together, and `relaying` is a mix along a tree.
"""

from dopt.mixing.displacement import Mix, mix
from dopt.mixing.failing import POLICIES, LinkLoss, check_own_weight, loss_options
from dopt.mixing.forms import FORMS, Dense, Form, Neighbours, form, links, messages
from dopt.mixing.received import Ages, senders
from dopt.mixing.relaying import relay, relay_ages, spanning_tree
from dopt.mixing.rules import WEIGHTS, as_array, as_matrix, default_rule, is_file, notes, read, stays_sparse, weights
from dopt.mixing.sparse import dense, need
from dopt.mixing.spectrum import (
    check,
    consensus_time,
    effective_neighbours,
    gap_kind,
    is_connected,
    is_doubly_stochastic,
    is_stochastic,
    is_symmetric,
    mean,
    second_modulus,
    smallest_eigenvalue,
    spectral_gap,
    union,
)

__all__ = [
    "FORMS",
    "POLICIES",
    "WEIGHTS",
    "Ages",
    "Dense",
    "Form",
    "LinkLoss",
    "Mix",
    "Neighbours",
    "as_array",
    "as_matrix",
    "check",
    "check_own_weight",
    "consensus_time",
    "default_rule",
    "dense",
    "effective_neighbours",
    "form",
    "gap_kind",
    "is_connected",
    "is_doubly_stochastic",
    "is_file",
    "is_stochastic",
    "is_symmetric",
    "links",
    "loss_options",
    "mean",
    "messages",
    "mix",
    "need",
    "notes",
    "read",
    "relay",
    "relay_ages",
    "second_modulus",
    "senders",
    "smallest_eigenvalue",
    "spanning_tree",
    "spectral_gap",
    "stays_sparse",
    "union",
    "weights",
]
