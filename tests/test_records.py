"""What a record costs: one look at the samples of all workers that a device simulates, and rings that are written by a slice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopt import AXIS, Run, rings
from dopt.engine import group_of, worker
from dopt.types import Clock

WORKERS = 3


def text_of(f, *arguments):
    return str(jax.make_jaxpr(f)(*arguments))


@pytest.mark.parametrize("partition", ["iid", "by_label"])
def test_f_and_its_gradient_from_all_samples_at_once_are_the_means_of_each_workers_own(partition):
    run = Run(
        algorithm="gossip_sgd", problem="softmax", workers=WORKERS, partition=partition, learning_rate=0.1, steps=1
    ).resolve()
    group = group_of([run])
    program, data = group.program, group.facts.data
    params = jax.tree.map(lambda x: np.linspace(-1, 1, x.size, dtype=np.float32).reshape(x.shape), group.facts.model)
    at_once = jax.jit(jax.vmap(lambda part: worker.evaluated(program, params, part), axis_name=AXIS))(data)
    loss = jax.value_and_grad(group.facts.problem.loss)
    own = [
        loss(params, jax.tree.map(lambda a, i=i, n=n: a[i, :n], data.samples))
        for i, n in enumerate(np.asarray(data.count))
    ]
    for found, *each in zip(jax.tree.leaves(at_once), *map(jax.tree.leaves, own), strict=True):
        assert np.asarray(found[0]) == pytest.approx(np.mean(each, 0), rel=1e-5, abs=1e-6)


def test_a_ring_is_written_by_a_slice_in_all_workers_and_runs():
    ring, value, step = jnp.zeros((2, WORKERS, 4, 5)), jnp.ones((2, WORKERS, 5)), jnp.int32(6)

    def write(slots, x):
        return rings.write(slots, Clock(step), x)

    both = jax.vmap(jax.vmap(write))
    assert "scatter" not in text_of(both, ring, value)
    assert np.array_equal(both(ring, value), ring.at[:, :, 6 % 4].set(value))


def test_a_ring_is_written_where_each_run_asks():
    ring, value, step = jnp.zeros((2, 4, 5)), jnp.ones(5), jnp.arange(2, dtype=jnp.int32)
    found = jax.vmap(lambda slots, k: rings.write(slots, Clock(k), value))(ring, step)
    assert np.array_equal(found, ring.at[jnp.arange(2), jnp.arange(2)].set(1))


@pytest.mark.parametrize(
    ("values", "finite"), [([3e38, 3e38, 3e38], True), ([0, np.inf, 0], False), ([np.inf, -np.inf, 0], False)]
)
def test_the_mean_over_workers_is_finite_just_where_all_of_them_are(values, finite):
    found = jax.vmap(worker.mean, axis_name=AXIS)(jnp.array(values, jnp.float32))
    assert bool(jnp.isfinite(found).all()) == finite
