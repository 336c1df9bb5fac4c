"""The mutants of each figure, in the figures' order. What a mutant does wrong is what a hurried reader of the paper would do."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jax import lax

from dopt import delays, draws, rings
from dopt.algorithms import ALGORITHMS, Method
from dopt.algorithms.gossip.exact_diffusion import diffusion
from dopt.algorithms.server import ServerProgram, server, stepping
from dopt.algorithms.synchronous import diloco
from dopt.algorithms.traits import Server, coordination_of
from dopt.cluster import REDUCTIONS, links, machines
from dopt.facts import clock
from dopt.mixing.rules import WEIGHTS
from dopt.topology import TOPOLOGIES, Periodic
from dopt.types import AXIS

from .patches import Mutant, Patch, attribute, entry, imposter, told, traits

# -- delays --

_read, _age = rings.read, delays.at


def one_step_fresher(slots: Any, clock: Any, staleness: Any, like: Any) -> Any:
    return _read(slots, clock, jnp.maximum(staleness - 1, 0), like)


def fresh(slots: Any, clock: Any, staleness: Any, like: Any) -> Any:
    return _read(slots, clock, jnp.zeros_like(staleness), like)


def one_age(law: Any, u: Any) -> Any:
    """All coordinates are as old as the first."""
    return jnp.broadcast_to(_age(law, u[:1]), u.shape)


# -- methods --

_ad_psgd, _delayed_gossip, _local_sgd = (
    ALGORITHMS[name].make for name in ("ad_psgd", "delayed_gossip_sgd", "local_sgd")
)


def fresh_neighbours(
    optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None, delay_self: bool = False
) -> Method:
    """Delayed gossip that hears its neighbours at once."""

    def apply(x: Any, state: Any, **extra: Any) -> Any:
        return mix.apply(x, state, **extra | {k: jnp.zeros_like(v) for k, v in extra.items() if k == "staleness"})

    return _delayed_gossip(optimizer, mix._replace(apply=apply), delay_self=delay_self)


def inverse_staleness(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    threshold: int | None = None,
    workers: int | None = None,
) -> Method:
    """Delay-adaptive with 1/τ, however fresh."""
    return stepping(optimizer, lambda staleness: 1 / jnp.maximum(staleness, 1))


def plain_average(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    elastic_rate: float | None = None,
    local_steps: int = 1,
    order: str = "joint",
    workers: int | None = None,
) -> Method:
    """EASGD that sets all models to their mean: local SGD."""
    return _local_sgd(optimizer, local_steps=local_steps)


def no_local_step(optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None) -> Method:
    """NIDS without its first step: exact diffusion."""
    return diffusion(optimizer, mix, fraction=0.5)


def fresh_async(optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Any = None) -> Method:
    """A server whose workers take their gradients at the model of when they push."""
    rule = stepping(optimizer)
    init, event = server(rule)

    def event_now(tables: Any, arrivals: Any, gradient: Any) -> Any:
        now = jax.tree.map(lambda kept, x: jnp.broadcast_to(x, kept.shape), tables.models, tables.params)
        return event(tables._replace(models=now), arrivals, gradient)

    return Method(rule.init, rule.update, server=ServerProgram(init, event_now))


def fresh_ad_psgd(optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None) -> Method:
    """AD-PSGD whose gradients are taken at the model that a worker has when it has computed."""
    method = _ad_psgd(optimizer, mix, learning_rate=learning_rate)
    init, event = method.server

    def event_now(tables: Any, arrivals: Any, gradient: Any) -> Any:
        return event(tables._replace(models=tables.params), arrivals, gradient)

    return Method(method.init, method.update, server=ServerProgram(init, event_now))


def of_the_first(name: str) -> Patch:
    """All workers step on the gradient of the first."""
    make = ALGORITHMS[name].make

    @wraps(make)
    def made(*args: Any, **options: Any) -> Method:
        method = make(*args, **options)

        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            first = jax.tree.map(lambda g: lax.all_gather(g, AXIS)[0], grads)
            return method.update(first, state, params, **extra)

        return Method(method.init, update, method.read)

    return entry(ALGORITHMS, name, made)


def rule(name: str, **changes: Any) -> Patch:
    """A method tells the clock something else; what is not changed it tells as before."""
    known = ALGORITHMS[name].traits

    def sends(options: Any, workers: int) -> Server:
        asked = coordination_of(known.exchange(options, workers))
        return Server(asked._replace(**{k: v(getattr(asked, k)) if callable(v) else v for k, v in changes.items()}))

    return traits(name, sends=sends)


# -- laws, graphs, chance --


def no_straggler(workers: int, *, straggler: float = 1.0) -> np.ndarray:
    return np.ones(workers)


EQUAL = attribute(
    machines,
    "PARTS",
    [replace(part, make=no_straggler) if "straggler" in part.known else part for part in machines.PARTS],
)


def _hops(workers: int) -> range:
    return range(1, 1 + (workers - 1).bit_length())


def _hears(workers: int, hops: Any) -> nx.DiGraph:
    graph = nx.empty_graph(workers, nx.DiGraph)
    graph.add_edges_from(((i + h) % workers, i) for i in range(workers) for h in hops if h % workers)
    return graph


def consecutive(workers: int) -> nx.DiGraph:
    """Neighbours 1, 2, 3, ... places on, not 1, 2, 4, ..."""
    return _hears(workers, _hops(workers))


def consecutive_in_turn(workers: int) -> Periodic:
    return Periodic(tuple(_hears(workers, [h]) for h in _hops(workers)))


_key = draws.key


def same_noise(seed: Any, worker: Any, *rest: Any) -> Any:
    return _key(seed, worker * 0, *rest)


SAME_NOISE = attribute(draws, "key", same_noise)

MUTANTS = (
    Mutant(
        "arjevani2018_delay",
        "gradients are a step fresher",
        attribute(rings, "read", one_step_fresher),
        ("limit", "calm"),
    ),
    Mutant(
        "chen2016_backup_workers",
        "waits for one more",
        rule("k_sync_sgd", gradients=lambda k: min(k + 1, 100)),
        ("few",),
    ),
    Mutant(
        "chen2016_backup_workers",
        "the late go on with what they have begun",
        rule("k_sync_sgd", limit=None, stop=False),
        ("few",),
    ),
    Mutant(
        "connectivity_delay", "neighbours' models are fresh", entry(ALGORITHMS, "delayed_gossip_sgd", fresh_neighbours)
    ),
    Mutant(
        "dai2018_staleness",
        "gradients are fresh",
        attribute(rings, "read", fresh),
        ("mlp-sgd", "mlp-rmsprop"),
    ),
    Mutant(
        "dutta2018_stale_gradients", "K-async begins anew", imposter("k_async_sgd", "k_sync_sgd"), ("clock_single",)
    ),
    Mutant(
        "dutta2018_stale_gradients",
        "K-batch-sync finishes stale work",
        imposter("k_batch_sync_sgd", "k_batch_async_sgd"),
        ("clock_single",),
    ),
    Mutant("ho2013_ssp", "a slack of one more", rule("ssp_sgd", slack=lambda s: s + 1), ("clock",)),
    Mutant("ho2013_ssp", "nobody waits", rule("ssp_sgd", slack=None), ("clock",)),
    Mutant(
        "koloskova2019_choco", "CHOCO without memory", told("choco_sgd", memory=False), ("choco", "averaging-choco")
    ),
    Mutant("koloskova2019_choco", "CHOCO's message has 2 %", told("choco_sgd", fraction=0.02), ("choco",)),
    Mutant(
        "koloskova2022_straggler",
        "delay-adaptive with 1/τ",
        entry(ALGORITHMS, "delay_adaptive_sgd", inverse_staleness),
    ),
    Mutant("koloskova2022_straggler", "nothing is dropped", rule("drop_stale_sgd", limit=None), ("near", "far")),
    Mutant("lian2017_dpsgd", "all step on one worker's gradient", of_the_first("gossip_sgd"), ("gossip4", "gossip16")),
    Mutant(
        "lian2017_dpsgd",
        "a server costs what a ring does",
        entry(REDUCTIONS, "server", REDUCTIONS["ring"].make),
        ("latency0", "bandwidth0"),
    ),
    Mutant(
        "lian2018_adpsgd",
        "AD-PSGD with fresh gradients",
        entry(ALGORITHMS, "ad_psgd", fresh_ad_psgd),
        ("asynchronous", "unlike"),
    ),
    Mutant("lian2018_adpsgd", "the straggler is as fast as all", EQUAL, ("constant",)),
    Mutant(
        "mishchenko2022_quadratic", "gradients are fresh", entry(ALGORITHMS, "async_sgd", fresh_async), ("regular",)
    ),
    Mutant(
        "mitliagkas2016_momentum",
        "gradients are fresh",
        entry(ALGORITHMS, "async_sgd", fresh_async),
        ("mean4", "mean8"),
    ),
    Mutant("nedic2018_topologies", "gossip mixes twice a step", told("gossip_sgd", rounds=2), ("powers", "squares")),
    Mutant(
        "nedic2018_topologies",
        "the ring is open",
        entry(TOPOLOGIES, "ring", TOPOLOGIES["path"].make),
        ("slow8", "slow16"),
    ),
    Mutant(
        "neglia2020_topology",
        "gossip waits for all",
        attribute(clock, "waits_for_neighbours", lambda one: False),
        ("alike",),
    ),
    Mutant("phase_diagram", "the straggler is as fast as all", EQUAL, ("random-allreduce_sgd",)),
    Mutant(
        "phase_diagram",
        "an all-reduce takes no time",
        attribute(links, "reduce_time", lambda *_, **__: 0.0),
        ("random-allreduce_sgd",),
    ),
    Mutant("recht2011_hogwild", "reads are consistent", attribute(delays, "at", one_age)),
    Mutant(
        "shi2014_exactness", "NIDS is exact diffusion", entry(ALGORITHMS, "nids", no_local_step), ("exact", "networks")
    ),
    Mutant("shi2014_exactness", "NIDS is EXTRA", imposter("nids", "extra"), ("exact", "networks")),
    Mutant("shi2014_exactness", "D² mixes half", imposter("d2", "exact_diffusion"), ("edge", "limit")),
    Mutant(
        "stich2018_local_sgd",
        "EASGD averages plainly",
        entry(ALGORITHMS, "easgd", plain_average, center=None),
        ("others", "elastic"),
    ),
    Mutant(
        "stich2018_local_sgd",
        "DiLoCo's momentum is heavy ball",
        attribute(diloco, "outer_optimizer", lambda name, rate, momentum: optax.sgd(rate, momentum)),
        ("others", "outer"),
    ),
    Mutant("stich2018_local_sgd", "all step on one worker's gradient", of_the_first("local_sgd"), ("noise",)),
    Mutant(
        "timeline", "a slack of one more", rule("ssp_sgd", slack=lambda s: s + 1), ("drawn_ssp_sgd", "long_ssp_sgd")
    ),
    Mutant(
        "timeline",
        "gossip waits for all",
        attribute(clock, "waits_for_neighbours", lambda one: False),
        ("drawn_gossip_sgd", "long_gossip_sgd"),
    ),
    Mutant("tyurin2023_ringmaster", "Ringmaster without stops", rule("ringmaster_sgd", stop=False), ("ringmaster",)),
    Mutant("tyurin2023_ringmaster", "Ringmaster's R is 10", rule("ringmaster_sgd", limit=9), ("ringmaster",)),
    Mutant(
        "tyurin2023_ringmaster", "Rennala takes gradients one update old", rule("rennala_sgd", limit=1), ("rennala",)
    ),
    Mutant("vogels2022_neighbours", "combines, then adapts", told("gossip_sgd", adapt_then_combine=False)),
    Mutant("vogels2022_neighbours", "all draw the same samples", SAME_NOISE),
    Mutant(
        "xiao2004_weights",
        "Metropolis-Hastings adds one",
        entry(WEIGHTS, "metropolis_tight", WEIGHTS["metropolis"].make),
    ),
    Mutant("xiao2004_weights", "the best constant is 1/d_max", entry(WEIGHTS, "laplacian", WEIGHTS["max_degree"].make)),
    Mutant("ying2021_exponential", "hops are 1, 2, 3", entry(TOPOLOGIES, "exponential", consecutive)),
    Mutant(
        "ying2021_exponential",
        "one peer is 1, 2, 3 places on",
        entry(TOPOLOGIES, "one_peer_exponential", consecutive_in_turn),
    ),
)
