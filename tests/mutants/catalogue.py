"""The mutants of each figure, in the figures' order. What a mutant does wrong is what a hurried reader of the paper would do."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from dopt.algorithms import ALGORITHMS, Method
from dopt.algorithms.asynchronous import hogwild_sgd
from dopt.algorithms.asynchronous.server import Server, stepping
from dopt.algorithms.gossip.exact_diffusion import diffusion
from dopt.algorithms.synchronous import diloco
from dopt.types import Coordination

from .patches import Mutant, attribute, entry, imposter, traits

# -- methods --


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


def no_local_step(optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None) -> Method:
    """NIDS without its first step: exact diffusion."""
    return diffusion(optimizer, mix, share=0.5)


_ad_psgd = ALGORITHMS["ad_psgd"].make


def fresh_ad_psgd(optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None) -> Method:
    """AD-PSGD whose gradients are taken at the model that a worker has when it has computed."""
    method = _ad_psgd(optimizer, mix, learning_rate=learning_rate)
    init, event = method.server

    def fresh(tables: Any, arrivals: Any, gradient: Any) -> Any:
        return event(tables._replace(models=tables.params), arrivals, gradient)

    return Method(method.init, method.update, server=Server(init, fresh))


_age = hogwild_sgd.delays.at


def one_age(law: Any, draws: Any) -> Any:
    """All coordinates are as old as the first."""
    return jnp.broadcast_to(_age(law, draws[:1]), draws.shape)


def _limit(limit: int, stop: bool, batch: int | None = None) -> Any:
    return lambda options, workers: Coordination(batch=batch, limit=limit, stop=stop)


MUTANTS = (
    Mutant(
        "koloskova2022_straggler",
        "delay-adaptive with 1/τ",
        entry(ALGORITHMS, "delay_adaptive_sgd", inverse_staleness),
    ),
    Mutant("lian2018_adpsgd", "AD-PSGD with fresh gradients", entry(ALGORITHMS, "ad_psgd", fresh_ad_psgd)),
    Mutant("recht2011_hogwild", "reads are consistent", attribute(hogwild_sgd.delays, "at", one_age)),
    Mutant("shi2014_exactness", "NIDS is exact diffusion", entry(ALGORITHMS, "nids", no_local_step), ("exact",)),
    Mutant("stich2018_local_sgd", "EASGD averages plainly", imposter("easgd", "local_sgd"), ("others", "elastic")),
    Mutant(
        "stich2018_local_sgd",
        "DiLoCo's momentum is heavy ball",
        attribute(diloco, "outer_optimizer", lambda name, rate, momentum: optax.sgd(rate, momentum)),
        ("others", "outer"),
    ),
    Mutant(
        "tyurin2023_ringmaster",
        "Ringmaster without stops",
        traits("ringmaster_sgd", coordination=_limit(5, False)),
        ("ringmaster",),
    ),
    Mutant(
        "tyurin2023_ringmaster",
        "Ringmaster's R is 10",
        traits("ringmaster_sgd", coordination=_limit(9, True)),
        ("ringmaster",),
    ),
    Mutant(
        "tyurin2023_ringmaster",
        "Rennala takes gradients one update old",
        traits(
            "rennala_sgd",
            coordination=lambda options, workers: Coordination(batch=options["batch"], limit=1, stop=options["stop"]),
        ),
        ("rennala",),
    ),
)
