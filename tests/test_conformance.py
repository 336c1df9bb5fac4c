"""The conformance table: every method is its equation, on every executor, and its special cases hold.

A row of `TABLE` is a method, or a variant of it. The right-hand sides are `oracles`: NumPy, float64. Random numbers are
recomputed through `dopt.draws`, `dopt.delays` and `dopt.cluster`: they are a function of (seed, worker, number) alone,
which is what these tests rest on, and what the tests of those modules prove.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax import lax
from jax.experimental.compilation_cache import compilation_cache

import dopt
from dopt import (
    AXIS,
    InputError,
    Problem,
    Result,
    Run,
    algorithms,
    cluster,
    compression,
    delays,
    draws,
    engine,
    mixing,
    schedule,
)
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import is_event_driven
from dopt.config import options_of
from dopt.config.exchanges import exchange_of
from dopt.config.run import of
from dopt.engine import group_of, run_slab
from dopt.facts.wiring import matrix
from dopt.testing import Special, agree, least_squares, methods, models, permuted, runs, same, vector
from dopt.testing.methods import slabs_of_one_program
from dopt.testing.runs import DIM, SAMPLES, STEPS

COMPUTED = 30 * STEPS  # computations of a worker at most, where it does not wait for others
BATCHES = {"precision": "float32", "batch_size": 2}
MOMENTUM = {"executor": "vmap", "optimizer.momentum": 0.9}


# -- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Row:
    """One method, or a variant of it."""

    name: str
    run: dict[str, Any]
    oracle: Callable[[oracles.Setting], np.ndarray]
    others: tuple[dict[str, Any], ...]  # changes that need no second compilation
    special: tuple[Special, ...]
    equivariant: bool = True  # permuting the workers permutes the result: not where each worker draws for itself
    momentum: bool = True  # u may be momentum
    relabelled: dict[str, Any] = field(default_factory=dict)  # changes without which it would not
    shows_luck: bool = (
        True  # a random clock shows in the models: not where each worker's own mean counts, on full gradients
    )

    @property
    def has_worker_axis(self) -> bool:
        name, own = self.run["algorithm"], of(self.run, "algorithm")
        return not is_event_driven(ALGORITHMS[name].traits.exchange(algorithms.options(name, own), 8))

    @property
    def is_random(self) -> bool:
        by_chance = self.run.get("topology") in ("random_matching", "matcha") or bool(self.run.get("link_loss"))
        drawn = self.run.get("algorithm.compressor") in ("random_k", "qsgd", "natural")
        drawn = drawn or "algorithm.participation" in self.run
        return by_chance or drawn or isinstance(self.run.get("delay"), str) or self.run.get("cluster") == "exponential"

    @property
    def local(self) -> dict[str, Any]:
        return MOMENTUM if self.momentum else {"executor": "vmap"}


def plain_optax(problem: Problem, optimizer: optax.GradientTransformation, together: bool = False) -> np.ndarray:
    """[n, d]: what a loop that has never heard of dopt makes of each fᵢ, or (together) of f."""

    def descend(start: Any, f: Callable[[Any], jax.Array]) -> Any:
        def step(_: Any, carry: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(f)(params), state, params)
            return optax.apply_updates(params, updates), state

        return lax.fori_loop(0, STEPS, step, (start, optimizer.init(start)))[0]

    def mean_loss(params: Any) -> jax.Array:
        return jnp.mean(jax.vmap(problem.loss, (None, 0))(params, data))

    with jax.enable_x64(True):
        data, start = jax.tree.map(jnp.asarray, (problem.data, problem.start))
        if together:
            one = jax.jit(partial(descend, f=mean_loss))(jax.tree.map(lambda x: x[0], start))
            return np.broadcast_to(vector(one), (len(problem.data["y"]), DIM + 1))
        each = jax.vmap(lambda own, start: descend(start, lambda params: problem.loss(params, own)))
        return vector(jax.jit(each)(data, start))


def plain_sgd(problem: Problem) -> np.ndarray:
    return plain_optax(problem, optax.sgd(0.05))


def is_sgd(name: str = "one_worker_is_sgd", **changes: Any) -> Special:
    graph = changes.pop("graph", None)
    return Special(name, plain_sgd, "rounding", changes, workers=1, graph=graph)


def any_optimizer(name: str, optimizer: optax.GradientTransformation, **options: Any) -> Special:
    return Special(
        f"with_{name}_is_the_optax_loop",
        lambda problem: plain_optax(problem, optimizer, together=True),
        "rounding",
        {"optimizer": name, **options},
        apart=False,
    )


separate = Special(
    "identity_mixing_is_separate_sgds",
    plain_sgd,
    "rounding",
    {"strict": False},
    graph=np.eye(8),
)
ALONE = np.ones((1, 1))
GOSSIP = {"algorithm": "gossip_sgd", "topology": "exponential"}  # directed: W and its transpose differ
DELAYED = {"algorithm": "delayed_gossip_sgd", "topology": "exponential"}
UNIFORM, GEOMETRIC = {"delay": "uniform", "delay.max": 3}, {"delay": "geometric", "delay.max": 5, "delay.mean": 2.0}
GRAPHS = ({"topology": "star"}, {"topology": "complete", "learning_rate": 0.1})
NO_DELAY = {"delay": 0, "delay.max": None}
no_delay_is_gossip = Special("no_delay_is_gossip", GOSSIP, "exact", NO_DELAY)

SERVER = {"cluster": "exponential", "cluster.straggler": 4.0}
EQUAL = {"cluster": "constant", "cluster.straggler": None}


def arriving(name: str, options: dict[str, Any], *special: Special, equivariant: bool = True, **fields: Any) -> Row:
    """A method that a server's arrivals drive."""
    given = {f"algorithm.{option}": value for option, value in options.items()}
    return Row(
        ", ".join([name, *(f"{option} {value}" for option, value in options.items())]),
        {"algorithm": name, **SERVER, **given, **fields},
        getattr(oracles, name),
        ({"cluster.straggler": 12.0}, EQUAL | {"cluster.profile": "linear"}),
        special,
        equivariant=equivariant,
        relabelled=EQUAL,
        shows_luck=name != "malenia_sgd",
    )


def is_async(**changes: Any) -> Special:
    return Special("without_its_rule_is_async", SERVER | {"algorithm": "async_sgd"}, "rounding", changes)


def is_allreduce(name: str = "all_workers_are_allreduce", **changes: Any) -> Special:
    return Special(name, {"algorithm": "allreduce_sgd"}, "rounding", changes, apart=False)


def in_rounds(name: str, options: dict[str, Any], *special: Special, **how: Any) -> Row:
    """A synchronous method that averages now and then."""
    given = {f"algorithm.{option}": value for option, value in {"local_steps": 3, **options}.items()}
    return Row(
        ", ".join([name, *(f"{option} {value}" for option, value in options.items())]),
        {"algorithm": name, **given},
        getattr(oracles, name),
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        special,
        **how,
    )


def is_local(**changes: Any) -> Special:
    return Special("is_local", {"algorithm": "local_sgd", "algorithm.local_steps": 3}, "rounding", changes)


RATES = ({"learning_rate": 0.1}, {"learning_rate": 0.02})
LOCAL = "algorithm.local_steps"

TABLE = [
    Row(
        "allreduce_sgd",
        {"algorithm": "allreduce_sgd"},
        oracles.allreduce_sgd,
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        (
            is_sgd(),
            any_optimizer("adam", optax.adam(0.05)),
            any_optimizer("sgd", optax.sgd(0.05, 0.9, True), **{"optimizer.momentum": 0.9, "optimizer.nesterov": True}),
        ),
    ),
    Row(
        "ring_allreduce_sgd",
        {"algorithm": "ring_allreduce_sgd"},
        oracles.allreduce_sgd,
        RATES,
        (is_sgd(), is_allreduce(), any_optimizer("adam", optax.adam(0.05))),
    ),
    Row(
        "fsdp_sgd",
        {"algorithm": "fsdp_sgd"},
        oracles.sharded,
        RATES,
        (is_sgd(), is_allreduce(), any_optimizer("adam", optax.adam(0.05))),
        equivariant=False,
    ),
    in_rounds("local_sgd", {}, is_sgd(), is_allreduce("every_step_is_allreduce", **{LOCAL: 1})),
    in_rounds(
        "local_sgd",
        {"participation": 0.4},
        is_sgd(),
        is_local(**{"algorithm.participation": 1.0}),
        equivariant=False,
    ),
    in_rounds(
        "post_local_sgd",
        {"switch_step": 4},
        is_sgd(),
        is_allreduce("before_the_switch_is_allreduce", **{"algorithm.switch_step": STEPS}),
        is_local(**{"algorithm.switch_step": 0}),
    ),
    in_rounds(
        "slowmo",
        {"momentum": 0.6, "slow_rate": 0.8},
        is_local(**{"algorithm.momentum": 0.0, "algorithm.slow_rate": 1.0}),
        momentum=False,
    ),
    in_rounds(
        "diloco",
        {},
        is_local(**{"algorithm.outer_momentum": 0.0, "algorithm.outer_learning_rate": 1.0}),
    ),
    in_rounds(
        "easgd",
        {"elastic_rate": None},
        dataclasses.replace(separate, name="without_exchange_is_separate_sgds", changes={LOCAL: 100}, graph=None),
    ),
    *(
        Row(
            f"compressed_sgd, {operator}{'' if feedback else ', without error feedback'}",
            {"algorithm": "compressed_sgd", "algorithm.compressor": operator, **options}
            | ({} if feedback else {"algorithm.error_feedback": False}),
            oracles.compressed_sgd,
            RATES,
            (is_allreduce("identity_is_allreduce"), is_sgd()) if operator == "identity" else (),
            equivariant=operator in ("identity", "top_k", "sign"),
        )
        for operator, options, feedback in (
            ("identity", {}, True),
            ("top_k", {"algorithm.fraction": 0.5}, True),
            ("random_k", {"algorithm.fraction": 0.5}, True),
            ("sign", {}, True),
            ("qsgd", {"algorithm.levels": 4}, True),
            ("natural", {}, False),
        )
    ),
    Row(
        "powersgd, vectors",
        {"algorithm": "powersgd"},
        oracles.allreduce_sgd,
        RATES,
        (is_sgd(), is_allreduce("vectors_are_averaged_whole")),
    ),
    Row("sign_majority", {"algorithm": "sign_majority"}, oracles.sign_majority, RATES, ()),
    Row(
        "delayed_sgd, iterate",
        {"algorithm": "delayed_sgd", **UNIFORM},
        oracles.delayed_sgd_iterate,
        ({"delay": 2, "delay.max": None}, GEOMETRIC | {"learning_rate": 0.1}),
        (is_sgd(**NO_DELAY), Special("no_delay_is_allreduce", {"algorithm": "allreduce_sgd"}, "exact", NO_DELAY)),
    ),
    Row(
        "delayed_sgd, queue",
        {"algorithm": "delayed_sgd", "algorithm.read": "queue", "delay": 3},
        oracles.delayed_sgd_queue,
        ({"delay": 5}, {"delay": 0, "learning_rate": 0.1}),
        (is_sgd(**NO_DELAY), Special("no_delay_is_allreduce", {"algorithm": "allreduce_sgd"}, "exact", NO_DELAY)),
    ),
    arriving("async_sgd", {}, is_sgd()),
    arriving("staleness_aware_sgd", {}, is_sgd()),
    arriving("staleness_aware_sgd", {"power": 0.7}, is_sgd(), is_async(**{"algorithm.power": 0.0})),
    arriving("delay_adaptive_sgd", {"threshold": 3}, is_sgd(), is_async(**{"algorithm.threshold": 1000})),
    arriving("drop_stale_sgd", {"max_staleness": 2}, is_sgd(), is_async(**{"algorithm.max_staleness": 1000})),
    arriving("ringmaster_sgd", {"threshold": 3}, is_sgd(), is_async(**{"algorithm.threshold": 1000})),
    arriving(
        "ringmaster_sgd",
        {"threshold": 3, "stop": False},
        Special("is_drop_stale", SERVER | {"algorithm": "drop_stale_sgd", "algorithm.max_staleness": 2}, "exact"),
    ),
    arriving(
        "ssp_sgd",
        {"slack": 1},
        is_sgd(),
        is_async(**{"algorithm.slack": 1000}),
        Special(
            "no_slack_is_allreduce_with_n_times_the_rate",
            {"algorithm": "allreduce_sgd"},
            "rounding",
            {"algorithm.slack": 0, "steps": 8 * STEPS, "learning_rate": 0.05 / 8},
            apart=False,
        ),
    ),
    arriving("dc_asgd", {}, is_sgd(), is_async(**{"algorithm.strength": 0.0})),
    arriving("dc_asgd", {"variant": "adaptive", "strength": 0.5}, is_sgd()),
    arriving("dc_asgd", {"variant": "hessian"}, is_sgd()),
    arriving("k_sync_sgd", {"k": 3}, is_sgd(**{"algorithm.k": 1}), is_allreduce(**{"algorithm.k": 8})),
    arriving(
        "k_batch_sync_sgd",
        {"k": 11},
        is_sgd(**{"algorithm.k": 1}),
        Special(
            "is_rennala_that_stops",
            SERVER | {"algorithm": "rennala_sgd", "algorithm.batch": 11, "algorithm.stop": True},
            "exact",
        ),
    ),
    arriving(
        "k_async_sgd",
        {"k": 3},
        is_sgd(**{"algorithm.k": 1}),
        is_async(**{"algorithm.k": 1}),
        is_allreduce(**{"algorithm.k": 8}),
    ),
    arriving("k_batch_async_sgd", {"k": 11}, is_sgd(**{"algorithm.k": 1}), is_async(**{"algorithm.k": 1})),
    arriving(
        "rennala_sgd",
        {"batch": 5},
        is_sgd(**{"algorithm.batch": 1}),
        is_allreduce("equal_speeds_are_allreduce", **EQUAL | {"algorithm.batch": 8}),
    ),
    arriving("rennala_sgd", {"batch": 5, "stop": True}),
    arriving(
        "malenia_sgd",
        {"batch": 12},
        is_sgd(**{"algorithm.batch": 1}),
        is_allreduce("equal_speeds_are_allreduce", **EQUAL | {"algorithm.batch": 8}),
    ),
    arriving("malenia_sgd", {"batch": 20, "stop": True}),
    arriving(
        "fedbuff",
        {"buffer": 3, "local_steps": 2},
        is_async(**{"algorithm.buffer": 1, "algorithm.local_steps": 1, "algorithm.power": 0.0}),
        is_sgd(**{"algorithm.buffer": 1, "algorithm.local_steps": 1}),
    ),
    arriving(
        "async_diloco",
        {"local_steps": 3},
        is_async(**{"algorithm.local_steps": 1, "algorithm.outer_learning_rate": 1.0, "algorithm.outer_momentum": 0.0}),
    ),
    arriving("async_easgd", {"local_steps": 2, "elastic_rate": 0.3}),
    arriving(
        "hogwild_sgd",
        {"lost_writes": 0.2},
        is_sgd(delay=0, **{"delay.max": None, "algorithm.lost_writes": 0.0}),
        equivariant=False,
        **UNIFORM,
    ),
    Row(
        "ad_psgd",
        {"algorithm": "ad_psgd", "topology": "star", **SERVER},
        oracles.ad_psgd,
        ({"topology": "ring"}, {"topology": "complete", "learning_rate": 0.1}),
        (),
        equivariant=False,
    ),
    Row(
        "gossip_sgd, combine then adapt",
        GOSSIP,
        oracles.combine_then_adapt,
        GRAPHS,
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "gossip_sgd, adapt then combine",
        GOSSIP | {"algorithm.adapt_then_combine": True},
        oracles.adapt_then_combine,
        GRAPHS,
        (
            is_sgd(graph=ALONE),
            separate,
            Special(
                "averaging_all_is_allreduce",
                {"algorithm": "allreduce_sgd"},
                "rounding",
                {"topology": "complete"},
                apart=False,
            ),
        ),
    ),
    Row(
        "delayed_gossip_sgd, constant delay",
        DELAYED | {"delay": 3},
        oracles.delayed_gossip,
        (*GRAPHS, {"topology": "path", "delay": 1}),
        (is_sgd("one_worker_is_sgd_whatever_the_delay", delay=3, graph=ALONE), no_delay_is_gossip),
    ),
    Row(
        "delayed_gossip_sgd, constant delay, of oneself too",
        DELAYED | {"delay": 3, "algorithm.delay_self": True},
        oracles.delayed_gossip_self,
        (*GRAPHS, {"topology": "path", "delay": 1}),
        (no_delay_is_gossip,),
    ),
    Row(
        "delayed_gossip_sgd, random delays",
        DELAYED | UNIFORM,
        oracles.delayed_gossip,
        (*GRAPHS, GEOMETRIC | {"topology": "path"}),
        (),
        equivariant=False,
    ),
    Row(
        "delayed_gossip_sgd, random delays, of oneself too",
        DELAYED | UNIFORM | {"algorithm.delay_self": True},
        oracles.delayed_gossip_self,
        (*GRAPHS, GEOMETRIC | {"topology": "path"}),
        (),
        equivariant=False,
    ),
    Row(
        "delayed_gossip_sgd, delays that links keep",
        DELAYED | UNIFORM | {"delay.fixed": True},
        oracles.delayed_gossip,
        (*GRAPHS, {"topology": "path"}),
        (),
        equivariant=False,
    ),
    Row(
        "delayed_gossip_sgd, delays from the clock",
        DELAYED | {"delay": "cluster", "cluster": "exponential"},
        oracles.without_barriers,
        (*GRAPHS, {"cluster": "constant", "cluster.straggler": 3.5}),
        (Special("equal_speeds_are_gossip", GOSSIP, "rounding", {"cluster": "constant"}),),
        equivariant=False,
    ),
    Row(
        "gossip_sgd, three rounds",
        GOSSIP | {"algorithm.rounds": 3},
        oracles.gossip_often,
        GRAPHS,
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "gossip_sgd, five rounds of Chebyshev",
        {"algorithm": "gossip_sgd", "topology": "path", "algorithm.rounds": 5, "algorithm.chebyshev": True},
        oracles.gossip_chebyshev,
        GRAPHS,
        (),
    ),
    Row(
        "gossip_sgd, every third step, two rounds, adapt then combine",
        GOSSIP | {"algorithm.local_steps": 3, "algorithm.rounds": 2, "algorithm.adapt_then_combine": True},
        oracles.gossip_often,
        GRAPHS,
        (is_sgd(graph=ALONE),),
    ),
    *(
        Row(
            f"gossip_sgd, links fail, {policy}",
            {"algorithm": "gossip_sgd", "topology": "star", "link_loss": 0.4, "link_loss.policy": policy},
            oracles.delayed_gossip if policy == "last_seen" else oracles.combine_then_adapt,
            ({"link_loss": 0.1}, {"topology": "complete", "learning_rate": 0.1}),
            (
                Special(
                    "no_link_fails", {"algorithm": "gossip_sgd", "topology": "star"}, "rounding", {"link_loss": 1e-9}
                ),
            ),
            equivariant=False,
        )
        for policy in ("keep_self", "renormalise", "last_seen")
    ),
    Row(
        "gossip_sgd, one-peer exponential graphs",
        {"algorithm": "gossip_sgd", "topology": "one_peer_exponential"},
        oracles.gossip_often,
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        (),
    ),
    Row(
        "gossip_sgd, random matchings",
        {"algorithm": "gossip_sgd", "topology": "random_matching"},
        oracles.gossip_often,
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        (),
        equivariant=False,
    ),
    Row(
        "gossip_sgd, matcha",
        {"algorithm": "gossip_sgd", "topology": "matcha"},
        oracles.gossip_often,
        ({"learning_rate": 0.1}, {"topology.budget": 0.7}),
        (),
        equivariant=False,
    ),
    Row(
        "gradient_tracking",
        GOSSIP | {"algorithm": "gradient_tracking"},
        oracles.gradient_tracking,
        GRAPHS,
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "gradient_tracking, base-2 graphs",
        {"algorithm": "gradient_tracking", "topology": "base_k"},
        oracles.gradient_tracking,
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        (),
    ),
    Row(
        "gradient_tracking, old models and trackers",
        GOSSIP | {"algorithm": "gradient_tracking", "delay": 2},
        oracles.gradient_tracking,
        ({"delay": 1}, {"topology": "path"}),
        (Special("no_delay", GOSSIP | {"algorithm": "gradient_tracking"}, "exact", {"delay": 0}),),
    ),
    Row(
        "gradient_tracking, adapt then combine",
        GOSSIP | {"algorithm": "gradient_tracking", "algorithm.adapt_then_combine": True},
        oracles.tracking_adapt_then_combine,
        GRAPHS,
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "gradient_tracking, adapt then combine, one-peer ring, links fail in both directions",
        {"algorithm": "gradient_tracking", "algorithm.adapt_then_combine": True, "topology": "one_peer_ring"}
        | {"link_loss": 0.3, "link_loss.symmetric": True},
        oracles.tracking_adapt_then_combine,
        ({"learning_rate": 0.1}, {"link_loss": 0.1}),
        (),
        equivariant=False,
    ),
    *(
        Row(
            name,
            {"algorithm": name, "topology": "star"},
            transcription,
            ({"topology": "path"}, {"topology": "complete", "learning_rate": 0.1}),
            (is_sgd(graph=ALONE), separate),
        )
        for name, transcription in (
            ("extra", oracles.extra),
            ("exact_diffusion", oracles.exact_diffusion),
            ("d2", oracles.d2),
            ("nids", oracles.nids),
        )
    ),
    Row(
        "push_sum_sgd",
        {"algorithm": "push_sum_sgd", "topology": "star"},
        oracles.push_sum,
        ({"topology": "exponential"}, {"topology": "directed_ring", "learning_rate": 0.1}),
        (
            is_sgd(graph=ALONE),
            separate,
            Special(
                "doubly_stochastic_weights_are_gossip",
                {"algorithm": "gossip_sgd", "algorithm.adapt_then_combine": True, "topology": "exponential"},
                "rounding",
                {"topology": "exponential"},
            ),
        ),
    ),
    Row(
        "push_sum_sgd, links fail",
        {"algorithm": "push_sum_sgd", "topology": "exponential", "link_loss": 0.3},
        oracles.push_sum,
        ({"topology": "star"}, {"link_loss": 0.1}),
        (),
        equivariant=False,
    ),
    Row(
        "push_diging",
        {"algorithm": "push_diging", "topology": "star"},
        oracles.push_diging,
        ({"topology": "exponential"}, {"topology": "directed_ring", "learning_rate": 0.1}),
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "push_diging, one-peer exponential graphs, links fail",
        {"algorithm": "push_diging", "topology": "one_peer_exponential", "link_loss": 0.2},
        oracles.push_diging,
        ({"learning_rate": 0.1}, {"link_loss": 0.1}),
        (),
        equivariant=False,
    ),
    Row(
        "push_pull",
        {"algorithm": "push_pull", "topology": "star"},
        oracles.push_pull,
        ({"topology": "path"}, {"topology": "directed_ring", "learning_rate": 0.1}),
        (is_sgd(graph=ALONE), separate),
    ),
    *(
        Row(
            f"choco_sgd, {operator}{'' if options.get('algorithm.memory', True) else ' without memory'}",
            {"algorithm": "choco_sgd", "topology": "star", "algorithm.compressor": operator}
            | {"algorithm.consensus_rate": 0.4, **options},
            oracles.choco,
            ({"topology": "path"}, {"learning_rate": 0.1}),
            (
                Special(
                    "identity_is_gossip",
                    {"algorithm": "gossip_sgd", "algorithm.adapt_then_combine": True, "topology": "star"},
                    "rounding",
                    {"algorithm.consensus_rate": 1.0},
                ),
                is_sgd(graph=ALONE, **{"algorithm.consensus_rate": 1.0}),
            )
            if operator == "identity"
            else (),
            equivariant=operator in ("identity", "top_k", "sign", "low_rank"),
        )
        for operator, options in (
            ("identity", {}),
            ("top_k", {"algorithm.fraction": 0.5}),
            ("top_k", {"algorithm.fraction": 0.5, "algorithm.memory": False}),
            ("random_k", {"algorithm.fraction": 0.5}),
            ("sign", {}),
            ("qsgd", {"algorithm.levels": 4}),
            ("natural", {}),
            ("low_rank", {"algorithm.rank": 1}),
        )
    ),
    Row(
        "qg_dsgdm",
        GOSSIP | {"algorithm": "qg_dsgdm"},
        oracles.quasi_global_momentum,
        GRAPHS,
        (
            Special(
                "no_momentum_is_gossip",
                GOSSIP | {"algorithm.adapt_then_combine": True},
                "rounding",
                {"algorithm.momentum": 0.0},
            ),
        ),
        momentum=False,
    ),
    Row(
        "relay_sgd",
        {"algorithm": "relay_sgd", "topology": "star"},
        oracles.relay_messages,
        ({"topology": "binary_tree"}, {"topology": "path", "learning_rate": 0.1}),
        (is_sgd(graph=ALONE),),
    ),
]
VARIANTS = [  # of a row above: their equation is another, but not their program
    in_rounds("easgd", {"elastic_rate": None, "order": "gradient_first"}),
    arriving("async_easgd", {"local_steps": 2, "elastic_rate": 0.3, "order": "gradient_first"}),
    arriving("drop_stale_sgd", {"max_staleness": 6, "count": "arrivals"}),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
AXIS_ROWS = pytest.mark.parametrize("row", [row for row in TABLE if row.has_worker_axis], ids=lambda row: row.name)
EVENT_ROWS = pytest.mark.parametrize("row", [row for row in TABLE if not row.has_worker_axis], ids=lambda row: row.name)


# -- one problem for all --------------------------------------------------------------------------------------------


def rows_of(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """A [n, samples, d] and y [n, samples], so that fᵢ(x) = ‖Aᵢx - yᵢ‖² / (2 samples), x as `vector` has it."""
    a, y = problem.data["a"], problem.data["y"]
    return np.concatenate([np.ones((*y.shape, 1)), a], -1), y


# -- runs and their right-hand sides ---------------------------------------------------------------------------------


def describe(row: Row, workers: int, changes: dict[str, Any], **fields: Any) -> Run:
    """A row's run; a change to None takes an option away."""
    return runs.describe({"workers": workers, **row.run, **fields, **changes})


@cache
def _made(row: Row, workers: int, fields: tuple[tuple[str, Any], ...]) -> Result:
    return dopt.run(describe(row, workers, dict(fields)), problem=least_squares(workers))


def result(row: Row, workers: int, **fields: Any) -> Result:
    """One run of a row; the same is made once."""
    return _made(row, workers, tuple(sorted(fields.items())))


def named(name: str) -> Row:
    (row,) = (row for row in TABLE if row.name == name)
    return row


@partial(jax.jit, static_argnums=(0, 1))
def uniforms(n: int, together: bool, seed: Any) -> jax.Array:
    """[steps, n (who reads), n (whose)] of delays: drawn for each link, or one for all."""
    worker, steps = jnp.arange(n, dtype=jnp.int32), jnp.arange(STEPS, dtype=jnp.int32)
    if together:
        one = jax.vmap(lambda k: draws.uniforms(seed, draws.EVERYONE, k, draws.DELAYS, 1))(steps)
        return jnp.broadcast_to(one[..., None], (STEPS, n, n))
    return jax.vmap(lambda k: jax.vmap(lambda i: draws.uniform_at(seed, i, k, draws.DELAYS, worker))(worker))(steps)


@partial(jax.jit, static_argnums=(0, 1))
def failing(n: int, symmetric: bool, seed: Any) -> jax.Array:
    """[steps, n (who reads), n (whose)] uniform numbers of links."""
    i, j = jnp.arange(n)[:, None], jnp.arange(n)[None]
    lane = jnp.minimum(i, j) * n + jnp.maximum(i, j) if symmetric else i * n + j
    return jax.vmap(lambda k: draws.uniform_at(seed, draws.EVERYONE, k, draws.LINKS, lane))(jnp.arange(STEPS))


@partial(jax.jit, static_argnums=(0, 1))
def batches(n: int, size: int, seed: Any) -> jax.Array:
    """[n, steps, size] sample numbers."""
    worker, number = jnp.arange(n, dtype=jnp.int32), jnp.arange(COMPUTED, dtype=jnp.int32)
    one = partial(draws.samples, batch_size=size, count=np.int32(SAMPLES))
    return jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None))(seed, worker, number)


def drawn_ages(run: Run) -> np.ndarray:
    """[steps, n, n]: how old the model of worker j is that worker i reads at step k."""
    n = run.workers
    if run.options.get("link_loss.policy") == "last_seen":
        arrived, ages = links_at(run), np.zeros((STEPS, n, n), int)
        for k in range(STEPS):
            ages[k] = np.where(arrived[k], 0, ages[k - 1] + 1 if k else 1)
        return ages
    if is_event_driven(exchange_of(run)):
        return np.zeros((STEPS, n, n), int)
    if run.delay == "cluster" or isinstance(run.delay, int):
        return np.full((STEPS, n, n), 0 if run.delay == "cluster" else run.delay)
    if run.options.get("delay.fixed"):
        fixed = delays.draw(run.delay, options_of(run, "delay"), run.seed, n)
        return np.broadcast_to(fixed, (STEPS, n, n))
    law = delays.table(run.delay, options_of(run, "delay"))
    u = uniforms(n, ALGORITHMS[run.algorithm].traits.staleness == "step", np.int32(run.seed))
    return np.asarray(delays.at(jnp.asarray(delays.cumulative(law, len(law)), jnp.float32), u))


def links_at(run: Run) -> np.ndarray:
    """[steps, n, n] bool: which links work."""
    if not run.link_loss:
        return np.ones((STEPS, run.workers, run.workers), bool)
    u = failing(run.workers, run.options["link_loss.symmetric"], np.int32(run.seed))
    return np.asarray(u) >= np.float32(run.link_loss)


def mixing_matrices(run: Run, w: Any) -> Callable[[int], np.ndarray]:
    """k -> W of the k-th mix, failed links worked in."""
    if isinstance(w, dopt.topology.Matchings):
        off = mixing.form(w, "dense", steps=2 * STEPS, seed=run.seed).weight
        several = off + np.eye(len(w)) * (1 - off.sum(-1, keepdims=True))
    else:
        several = w if w.ndim == 3 else w[None]
    arrived, policy, eye = links_at(run), run.options.get("link_loss.policy"), np.eye(run.workers)

    def at(k: int) -> np.ndarray:
        W = several[k % len(several)]
        if policy in (None, "last_seen"):
            return W
        kept = np.where(arrived[k] | (eye == 1), W, 0)
        if policy == "renormalise":
            return kept / kept.sum(1, keepdims=True)
        axis = 0 if "push" in run.algorithm else 1
        return kept + np.diag(1 - kept.sum(axis))

    return at


@cache
def _operator(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[compression.Compressor, Callable]:
    operator = compression.make(name, **dict(options))

    @jax.jit
    def apply(tree: Any, state: Any, seed: Any, who: Any, k: Any) -> tuple[Any, Any]:
        return operator.apply(tree, state, draws.key(seed, who, k, draws.MESSAGES))

    return operator, apply


def compressing(run: Run) -> Callable[[int, int, np.ndarray], np.ndarray]:
    """(i, k, vector) -> what worker i sends: the k largest by NumPy; others by the operator, whose tests are its own."""
    options = options_of(run, "algorithm")
    for own in ("consensus_rate", "memory", "error_feedback"):
        options.pop(own, None)
    name = options.pop("compressor", "identity")
    (operator, apply), states = _operator(name, tuple(options.items())), {}

    def compress(i: int, k: int, v: np.ndarray) -> np.ndarray:
        if name == "top_k":
            kept = np.argsort(-np.abs(v), kind="stable")[: max(1, round(options["fraction"] * len(v)))]
            return np.where(np.isin(np.arange(len(v)), kept), v, 0)
        with jax.enable_x64(True):
            tree = {"b": jnp.asarray(v[0]), "w": jnp.asarray(v[1:])}
            who = draws.EVERYONE if operator.shared else i
            message, states[i] = apply(tree, states.get(i, operator.init(tree)), np.int32(run.seed), np.uint32(who), k)
            return vector(message)

    return compress


def oracle(row: Row, run: Run, ages: np.ndarray | None = None) -> np.ndarray:
    """[steps + 1, n, d]: the models of a resolved run, by NumPy."""
    n, problem = run.workers, least_squares(run.workers)
    a, y = rows_of(problem)
    if run.batch_size is None:
        drawn = np.broadcast_to(np.arange(SAMPLES), (n, COMPUTED, SAMPLES))
    else:
        drawn = np.asarray(batches(n, run.batch_size, np.int32(run.seed)))

    def gradient(i: int, x: np.ndarray, m: int) -> np.ndarray:
        rows = drawn[i, m]
        return a[i, rows].T @ (a[i, rows] @ x - y[i, rows]) / len(rows)

    machines = None if run.cluster is None else cluster.make(run.cluster, n, run.seed, **options_of(run, "cluster"))

    def seconds(i: int, m: int) -> float:
        return float(cluster.worker_times(machines, i, m + 1)[m])

    def hessian(i: int, x: np.ndarray, m: int) -> np.ndarray:
        rows = drawn[i, m]
        return a[i, rows].T @ a[i, rows] / len(rows)

    momentum = run.options.get("optimizer.momentum", 0.0)
    w = matrix(run) if run.topology is not None else np.eye(n)
    pair = w if isinstance(w, tuple) else (w, w)
    W, C = (mixing_matrices(run, part) for part in pair)
    ages = drawn_ages(run) if ages is None else ages
    setting = oracles.Setting(
        gradient,
        vector(problem.start),
        STEPS,
        rate_of(run),
        momentum,
        W,
        ages,
        cache(seconds),
        C,
        compressing(run) if "algorithm.compressor" in run.options else None,
        options_of(run, "algorithm"),
        hessian,
        lambda i, m: int(schedule.partners(run.seed, w != 0, i, m + 1)[m]),
        *(coordinates(run) if run.algorithm == "hogwild_sgd" else ()),
    )
    if run.options.get("algorithm.participation", 1.0) < 1:
        count = max(1, round(run.options["algorithm.participation"] * n))
        setting = setting._replace(takes_part=lambda r: np.asarray(draws.subset(np.int32(run.seed), r, n, count)))
    return row.oracle(setting)


def rate_of(run: Run) -> float | Callable[[int], float]:
    """The rate, or what it is after so many updates."""
    if "learning_rate.schedule" not in run.options:
        return run.learning_rate
    over = run.options["learning_rate.transition_steps"]
    return lambda count: run.learning_rate * run.options["learning_rate.decay_rate"] ** (count / over)


def coordinates(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """[steps, d]: how old each coordinate is that is read, and whether its write is lost."""
    law = delays.table(run.delay, options_of(run, "delay"))
    u, v = (
        np.stack([draws.uniforms(run.seed, draws.EVERYONE, k, stream, DIM + 1) for k in range(STEPS)])
        for stream in (draws.DELAYS, draws.LINKS)
    )
    ages = delays.at(jnp.asarray(delays.cumulative(law, len(law)), jnp.float32), jnp.asarray(u))
    return np.asarray(ages), v < np.float32(run.options["algorithm.lost_writes"])


def assert_is(found: Any, trajectory: np.ndarray, workers: int, tolerance: float) -> None:
    """The models at the end, and f(x̄) and the consensus distance on the way, are those of NumPy."""
    close = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    close(models(found), trajectory[-1])
    a, y = rows_of(least_squares(workers))
    at = trajectory[found.history["step"]]
    mean = at.mean(1)
    close(found.history["loss"], [0.5 * np.mean((a @ x - y) ** 2) for x in mean])
    close(found.history["consensus_distance"], ((at - mean[:, None]) ** 2).sum(-1).mean(-1))


# -- propositions ---------------------------------------------------------------------------------------------------


def test_every_registered_method_has_a_row() -> None:
    assert {row.run["algorithm"] for row in TABLE} == set(ALGORITHMS)


@AXIS_ROWS
@pytest.mark.parametrize("executor", ["pmap", "shard_map"])  # mesh has sixteen workers on them, below
def test_eight_devices_equal_vmap(row: Row, executor: str) -> None:
    one, eight = result(row, 8, **BATCHES), result(row, 8, executor=executor, **BATCHES)
    assert models(eight).dtype == np.float32
    agree(eight, one, 1e-6)


@pytest.mark.parametrize("executor", ["pmap", "shard_map", "mesh"])
def test_a_run_whose_problem_gives_no_starts_equals_vmap(executor: str) -> None:
    # pmap misreads the axes of its arguments where their leaves happen to be as many as the arguments
    problem = dataclasses.replace(least_squares(8), start=None)
    here, there = (
        dopt.run(describe(TABLE[0], 8, {"executor": where}), problem=problem) for where in ("vmap", executor)
    )
    np.testing.assert_allclose(models(there), models(here), rtol=1e-10, atol=1e-10)


@ROWS
def test_float32_sees_the_batches_and_delays_of_the_numpy_float64_loop(row: Row) -> None:
    found = result(row, 8, **BATCHES)
    tolerance = 1e-6 if not row.has_worker_axis else 1e-5
    assert_is(found, oracle(row, found.run), 8, tolerance)


@ROWS
def test_slabs_equal_the_numpy_transcription_without_a_second_compilation(row: Row) -> None:
    problem, changes = least_squares(8), ({}, {"seed": 4}, *row.others)
    runs = [describe(row, 8, change).resolve(problem=problem) for change in changes]
    outcomes, compiled = slabs_of_one_program(runs, problem)
    again = run_slab(compiled, runs[:2])
    for run, outcome in zip(runs, outcomes, strict=True):
        assert_is(outcome, oracle(row, run), 8, 1e-10)
    for once, twice in zip(outcomes, again, strict=False):
        same(once, twice)
    if row.shows_luck:
        assert row.is_random == bool(np.any(models(outcomes[0]) != models(outcomes[1])))


FOUR = [(row, "shard_map") for row in TABLE[:4]] + [(TABLE[0], "pmap")]


@pytest.mark.parametrize(("row", "executor"), FOUR, ids=lambda x: getattr(x, "name", x))
def test_four_workers_on_four_devices_equal_the_numpy_transcription(row: Row, executor: str) -> None:
    found = result(row, 4, executor=executor, batch_size=2)
    assert_is(found, oracle(row, found.run), 4, 1e-10)


@ROWS
@pytest.mark.parametrize("executor", ["vmap", "mesh"])
def test_sixteen_workers_equal_the_numpy_transcription(row: Row, executor: str) -> None:
    if executor == "mesh" and not row.has_worker_axis:
        with pytest.raises(InputError, match="use vmap"):
            result(row, 16, executor=executor)
        return
    found = result(row, 16, **row.local | {"executor": executor})
    assert_is(found, oracle(row, found.run), 16, 1e-10)


MIXED = [row for row in TABLE if row.has_worker_axis and row.run.get("topology") not in (None, "random_matching")]
# the last of each method: their old models, failing links and sequences are there
SHIFTED = [row for name, row in {row.run["algorithm"]: row for row in MIXED}.items() if name != "relay_sgd"]


@pytest.mark.parametrize("row", SHIFTED, ids=lambda row: row.name)
def test_sixteen_workers_whose_models_travel_as_shifts_equal_the_numpy_transcription(row: Row) -> None:
    found = result(row, 16, **row.local | {"executor": "mesh", "mix": "permutations"})
    assert_is(found, oracle(row, found.run), 16, 1e-10)


@EVENT_ROWS
def test_four_event_driven_workers_equal_the_numpy_event_loop(row: Row) -> None:
    found = result(row, 4, batch_size=2)
    assert_is(found, oracle(row, found.run), 4, 1e-10)


@pytest.mark.parametrize(
    ("executor", "workers", "devices"), [("vmap", 8, 1), ("pmap", 4, 4), ("shard_map", 4, 4), ("mesh", 16, 8)]
)
def test_an_executor_runs_on_the_devices_it_says(executor: str, workers: int, devices: int) -> None:
    problem = least_squares(workers)
    run = describe(TABLE[0], workers, {"executor": executor}).resolve(problem=problem)
    group = group_of([run], problem=problem)
    assert len(group.devices) == devices
    shardings = jax.tree.leaves(engine.compile(group, 1).go.output_shardings)
    assert {len(where.device_set) for where in shardings} == {devices}


@pytest.mark.parametrize("row", [row for row in TABLE if row.equivariant], ids=lambda row: row.name)
def test_permuting_the_workers_permutes_the_result(row: Row) -> None:
    n, order = 16, np.random.default_rng(0).permutation(16)
    if row.has_worker_axis:
        problem, found = least_squares(n), result(row, n, **row.local)
        graph = None
        if "topology" in row.run:
            w = matrix(found.run)
            pair = [part[..., order, :][..., order] for part in (w if isinstance(w, tuple) else (w,))]
            graph = tuple(pair) if len(pair) > 1 else pair[0]
        described = describe(row, n, row.local | {"topology": None})
        moved = dopt.run(described, problem=permuted(problem, order), graph=graph)
        np.testing.assert_allclose(models(moved), models(found)[order], rtol=1e-12, atol=1e-12)
    else:  # a server has one model; no two arrivals coincide
        problem, scale = least_squares(n, apart=False), 1 + np.sqrt(np.arange(n) + 0.3)
        found = dopt.run(describe(row, n, row.relabelled | {"cluster.scale": tuple(scale)}), problem=problem)
        described = describe(row, n, row.relabelled | {"cluster.scale": tuple(scale[order])})
        moved = dopt.run(described, problem=permuted(problem, order))
        np.testing.assert_allclose(models(moved), models(found), rtol=1e-12, atol=1e-12)


SPECIAL = [pytest.param(row, special, id=f"{row.name}: {special.name}") for row in TABLE for special in row.special]


@pytest.mark.parametrize(("row", "special"), SPECIAL)
def test_special_case(row: Row, special: Special) -> None:
    methods.check_special(row.run, special)


@pytest.mark.parametrize("delay", [1, 5])
def test_a_queue_moves_nothing_before_its_first_gradient_arrives(delay: int) -> None:
    row, problem = named("delayed_sgd, queue"), least_squares(8)
    loss = dopt.run(describe(row, 8, {"delay": delay, "record_every": 1}), problem=problem).history["loss"]
    assert (loss[: delay + 1] == loss[0]).all()
    assert (np.diff(loss[delay:]) != 0).all()


@pytest.fixture
def _anew(tmp_path: Path) -> Iterator[None]:
    """What was compiled before is not taken from the tests' cache (conftest.py)."""
    kept = jax.config.jax_compilation_cache_dir
    for folder in (str(tmp_path), kept):
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        if folder != kept:
            yield


@pytest.mark.usefixtures("_anew")
@pytest.mark.parametrize("row", [TABLE[0], *(row for row in TABLE if row.is_random)], ids=lambda row: row.name)
def test_the_same_seed_compiled_anew_gives_the_same_trace(row: Row) -> None:
    again = dopt.run(describe(row, 8, BATCHES), problem=least_squares(8))
    same(again, result(row, 8, **BATCHES))


def test_another_seed_gives_other_batches() -> None:
    one, other = result(TABLE[0], 8, **BATCHES), result(TABLE[0], 8, seed=4, **BATCHES)
    assert np.any(models(one) != models(other))


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_a_variant_equals_the_numpy_transcription(row: Row) -> None:
    found = result(row, 8, **row.local)
    assert_is(found, oracle(row, found.run), 8, 1e-10)


FALLING = {"schedule": "exponential_decay", "transition_steps": 4, "decay_rate": 0.5}
COUNTED = [  # who counts: a resting worker's, too; whoever divides by the rate; the server; the worker itself
    "local_sgd, participation 0.4",
    "slowmo, momentum 0.6, slow_rate 0.8",
    "qg_dsgdm",
    "fedbuff, buffer 3, local_steps 2",
    "async_diloco, local_steps 3",
    "async_easgd, local_steps 2, elastic_rate 0.3",
    "ad_psgd",
]


@pytest.mark.parametrize("row", [named(name) for name in COUNTED], ids=lambda row: row.name)
def test_a_schedule_counts_on_whatever_restarts_or_rests(row: Row) -> None:
    found = result(row, 8, **row.local, **{f"learning_rate.{name}": value for name, value in FALLING.items()})
    assert_is(found, oracle(row, found.run), 8, 1e-10)


# -- inside optax's own chain ---------------------------------------------------------------------------------------


W = mixing.weights(dopt.topology.make("star", 4))


def loop(method: optax.GradientTransformationExtraArgs, reads: Callable | None = None, **extra: Any) -> np.ndarray:
    """[n, d]: one's own training loop over an axis of four workers."""
    problem = least_squares(4)

    def worker(start: Any, own: Any) -> Any:
        def step(_: Any, carry: Any) -> Any:
            params, state = carry
            at = params if reads is None else reads(state, params, **extra)
            updates, state = method.update(jax.grad(problem.loss)(at, own), state, params, **extra)
            return optax.apply_updates(params, updates), state

        return lax.fori_loop(0, STEPS, step, (start, method.init(start)))[0]

    with jax.enable_x64(True):
        start, data = jax.tree.map(jnp.asarray, (problem.start, problem.data))
        return vector(jax.jit(jax.vmap(worker, axis_name=AXIS))(start, data))


def delayed_gossip() -> dopt.Method:
    return algorithms.make("delayed_gossip_sgd", optax.sgd(0.05), mixing.mix(W, delay=2))


def delayed(**options: Any) -> dopt.Method:
    return algorithms.make("delayed_sgd", optax.sgd(0.05), slots=4, **options)


@pytest.mark.parametrize("chain", [optax.chain, dopt.chain], ids=["optax", "dopt"])
@pytest.mark.parametrize("staleness", [1, np.array([0, 1, 2, 1])], ids=["one", "of each sender"])
def test_a_method_in_a_chain_receives_its_staleness(chain: Callable, staleness: Any) -> None:
    chained = loop(chain(optax.clip(1e9), delayed_gossip()), staleness=staleness)
    ages = np.broadcast_to(staleness, (STEPS, 4, 4))
    row = named("delayed_gossip_sgd, constant delay")
    run = describe(row, 4, {"topology": "star"}).resolve(problem=least_squares(4))
    np.testing.assert_allclose(chained, oracle(row, run, ages=ages)[-1], rtol=1e-10, atol=1e-10)
    assert np.any(chained != loop(delayed_gossip()))


def test_a_chain_reads_where_its_one_delayed_part_reads() -> None:
    method = dopt.chain(optax.clip(1e9), delayed(), optax.identity())
    row = named("delayed_sgd, iterate")
    run = describe(row, 4, {"delay": 3, "delay.max": None}).resolve(problem=least_squares(4))
    expected = oracle(row, run)[-1]
    np.testing.assert_allclose(loop(method, method.read, staleness=3), expected, rtol=1e-10, atol=1e-10)
    assert np.abs(loop(method) - expected).max() > 1e-3


def test_two_delayed_reads_in_a_chain_are_refused() -> None:
    with pytest.raises(InputError, match="at most one part"):
        dopt.chain(delayed(), delayed())
    dopt.chain(delayed(), delayed(read="queue"), delayed_gossip())


def test_a_chain_of_parts_without_a_read_takes_the_gradient_at_the_present_model() -> None:
    assert dopt.chain(optax.clip(1e9), delayed_gossip()).read(None, "present", staleness=1) == "present"
