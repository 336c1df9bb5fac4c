"""What messages between the devices of this machine cost: collectives timed at several sizes, and ℓ and w fitted to them.

A collective of B bytes on each of n devices takes rounds·ℓ + factor·B/w (the model of `dopt.cluster.links`), ℓ the latency of a
round in seconds, w the bandwidth in bytes per second:

  psum        2(n-1)ℓ + 2(n-1)/n·B/w     Patarasuk-Yuan 2009, bandwidth optimal all-reduce algorithms
  all_gather   (n-1)ℓ + (n-1)·B/w        around the same ring, B the bytes that each one gives
  ppermute          ℓ + B/w              one message to the next
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dopt.types import AXIS, InputError

INSIDE = 10  # collectives of one call: what it costs to start one is not the network's
FORMAT = 1  # of the file
SIZES = {"cpu": tuple(2**k for k in (10, 13, 16, 19, 22))}  # bytes
SIZES_ELSEWHERE = tuple(2**k for k in (10, 14, 18, 22, 26))


class Collective(NamedTuple):
    """One way to exchange, and what it should cost."""

    once: Callable[[jax.Array, Any, int], jax.Array]  # (x [size], number, devices) -> x
    rounds: Callable[[int], float]  # devices -> how many latencies
    factor: Callable[[int], float]  # devices -> how many times its bytes go over a link


class Measured(NamedTuple):
    """Times of one collective, and the line through them."""

    sizes: tuple[int, ...]  # bytes
    seconds: tuple[float, ...]  # medians
    latency: float  # ℓ, seconds
    bandwidth: float  # w, bytes per second; inf where size does not matter


COLLECTIVES = {
    "psum": Collective(lambda x, i, n: lax.psum(x, AXIS) / n, lambda n: 2 * (n - 1), lambda n: 2 * (n - 1) / n),
    # which part is kept changes from one to the next, so that all have to be there
    "all_gather": Collective(lambda x, i, n: lax.all_gather(x, AXIS)[i % n], lambda n: n - 1, lambda n: n - 1),
    "ppermute": Collective(
        lambda x, i, n: lax.ppermute(x, AXIS, [(j, (j + 1) % n) for j in range(n)]), lambda n: 1, lambda n: 1
    ),
}


def fit(rounds: float, factor: float, sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """(ℓ, w) by least squares of relative errors, neither of them negative: the smallest message counts as the largest."""
    from scipy.optimize import nnls

    t = np.asarray(seconds, float)
    columns = np.stack([np.full(len(t), rounds), factor * np.asarray(sizes, float)], 1) / t[:, None]
    scale = np.linalg.norm(columns, axis=0)
    latency, pace = nnls(columns / scale, np.ones(len(t)))[0] / scale
    return float(latency), float(1 / pace) if pace else float("inf")


def timed(name: str, devices: Sequence[jax.Device], size: int, repeats: int) -> float:
    """Median seconds of one collective of `size` bytes on each device."""
    n, once = len(devices), COLLECTIVES[name].once
    mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))

    def several(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, INSIDE, lambda i, y: once(y, i, n), x)

    call = jax.jit(jax.shard_map(several, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS), check_vma=False))
    x = jax.device_put(jnp.ones(n * max(1, size // 4), jnp.float32), NamedSharding(mesh, P(AXIS)))
    took = []
    for _ in range(repeats + 1):  # the first one compiles
        begin = time.perf_counter()
        call(x).block_until_ready()
        took.append((time.perf_counter() - begin) / INSIDE)
    return float(np.median(took[1:]))


def measure(
    devices: Sequence[jax.Device] | None = None, *, sizes: Sequence[int] | None = None, repeats: int = 9
) -> dict[str, Measured]:
    """Each collective at each size on these devices, by default all there are.

    Raises:
      InputError: there is one device only.
    """
    devices = list(devices or jax.devices())
    if len(devices) < 2:
        raise InputError(
            f"collectives: one device ({devices[0].device_kind}) sends no messages, so there is nothing to measure; on a CPU, --devices N makes virtual ones"
        )
    sizes = tuple(sizes or SIZES.get(devices[0].platform, SIZES_ELSEWHERE))
    found = {}
    for name, collective in COLLECTIVES.items():
        seconds = tuple(timed(name, devices, size, repeats) for size in sizes)
        n = len(devices)
        found[name] = Measured(sizes, seconds, *fit(collective.rounds(n), collective.factor(n), sizes, seconds))
    return found


def to_dict(found: dict[str, Measured], devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What the file says: `latency` and `bandwidth` of a link, which the clock reads, and all that was measured."""

    def plain(m: Measured) -> dict[str, Any]:
        return {"latency": m.latency, "bandwidth": m.bandwidth if np.isfinite(m.bandwidth) else None}

    each = {name: plain(m) | {"bytes": list(m.sizes), "seconds": list(m.seconds)} for name, m in found.items()}
    machine = {"device": devices[0].device_kind, "devices": len(devices)}
    return {"format": FORMAT, **machine, **plain(found["ppermute"]), "collectives": each}
