"""A method may exchange several things in a step, one after the other: bytes add up, and so does the time that they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import optax
import pytest

import dopt
from dopt import Run
from dopt.algorithms import ALGORITHMS, Method
from dopt.algorithms.method import at_boundary, clock, gossip
from dopt.algorithms.traits import AllReduce, Neighbours, Pairs, Server
from dopt.algorithms.trees import add, mean, subtract
from dopt.cluster import make
from dopt.cluster.links import gossip_times, reduce_messages, reduce_time
from dopt.facts import facts_of
from dopt.facts.timetable import timetable
from dopt.schedule import Wait, barrier, lockstep
from dopt.types import Clock, InputError, Mix, Reduction, Tree

N, D, STEPS, PERIOD = 5, 3, 7, 3
RUN: dict[str, Any] = {
    "algorithm": "averaging_gossip",
    "workers": N,
    "problem": "quadratic",
    "problem.dim": D,
    "topology": "path",
    "learning_rate": 0.1,
    "steps": STEPS,
    "record_every": 1,
    "precision": "float64",
}
NETWORK = {"cluster": "exponential", "cluster.latency": 0.5, "cluster.bandwidth": 100.0}


class State(NamedTuple):
    inner: Any
    mix: Any
    clock: Clock


def averaging_gossip(
    optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Any = None, period: int = PERIOD
) -> Method:
    """Gossip, and at every so many steps the average of all. Chen et al. 2021, 2105.09080: W and then J is J."""

    def init(params: Tree) -> State:
        return State(optimizer.init(params), mix.init(params), clock())

    def update(grads: Tree, state: State, params: Tree = None, **extra: Any) -> tuple[Tree, State]:
        moved, inner = optimizer.update(grads, state.inner, params)
        shift, mixed = mix.apply(params, state.mix, **extra)
        near = add(params, add(shift, moved))
        new = at_boundary(state.clock.step, period, lambda: mean(near), lambda: near)
        return subtract(new, params), State(inner, mixed, Clock(state.clock.step + 1))

    return Method(init, update)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """The method is known in these tests alone."""
    with mock.patch.dict(ALGORITHMS):
        gossip(
            source="here",
            sends=lambda options, workers: (
                Neighbours("doubly stochastic"),
                AllReduce(Reduction(period=options["period"])),
            ),
        )(averaging_gossip)
        yield


def resolved(**fields: Any) -> dopt.config.Resolved:
    return Run.from_dict(RUN | fields).resolve()


def test_bytes_of_what_is_sent_one_after_the_other_add_up() -> None:
    facts = facts_of([resolved()])
    steps, model = np.arange(STEPS + 1), 8 * D
    links = 2 * (N - 1) / N  # of a path, for each worker in the mean
    reduced = reduce_messages("ring", N)[0]
    assert facts.sizes.bits == ((8 * model,), (8 * model,))
    np.testing.assert_allclose(facts.axes(0, 0)["bytes_sent"], model * (links * steps + reduced * (steps // PERIOD)))


def test_how_often_a_method_mixes_is_what_it_says_it_sends() -> None:
    gossip(source="here", sends=Neighbours("doubly stochastic", mixes_once=False, period=2))(averaging_gossip)
    steps, links = np.arange(STEPS + 1), 2 * (N - 1) / N
    np.testing.assert_allclose(facts_of([resolved()]).axes(0, 0)["bytes_sent"], 8 * D * links * (steps // 2))


def test_a_step_takes_the_time_of_its_exchanges_one_after_the_other() -> None:
    run = resolved(**NETWORK)
    facts, model = facts_of([run]), 8 * D
    machines = make("exponential", N, run.seed, latency=0.5, bandwidth=100.0)
    near = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) == 1
    gossiping, reducing = gossip_times(machines.links, near, model), reduce_time(machines.links, N, model, False)
    computing, now, expected = dopt.cluster.compute_times(machines, STEPS), np.zeros(N), []
    for k in range(STEPS):
        done = now + computing[:, k]
        now = np.array([done[near[i] | (np.arange(N) == i)].max() for i in range(N)]) + gossiping
        if (k + 1) % PERIOD == 0:
            now = np.full(N, now.max() + reducing)
        expected.append(now.max())
    np.testing.assert_allclose(facts.axes(0, 0)["time"][1:], expected)


def test_the_timetable_shows_the_times_and_bytes_of_the_clock() -> None:
    run = resolved(**NETWORK)
    facts = facts_of([run])
    table = timetable(run, facts.matrix(0), 8 * D)
    done = [table.time[table.batch == k].max() for k in range(STEPS)]
    np.testing.assert_allclose(done, facts.axes(0, 0)["time"][1:])
    np.testing.assert_allclose(table.bytes[table.applied].sum() / N, facts.axes(0, 0)["bytes_sent"][-1])


def test_a_method_that_gossips_and_reduces_runs() -> None:
    found = dopt.run(resolved(**NETWORK, metrics=("consensus_distance",)))
    apart = found.history["consensus_distance"]
    after = np.arange(STEPS + 1) % PERIOD == 0  # all models are one after a reduction, and before the first step
    assert (apart[after] < 1e-25).all()
    assert (apart[~after] > 1e-5).all()


def test_what_all_wait_for_is_waited_for_after_what_neighbours_wait_for() -> None:
    machines = make("constant", 3, 0)
    slow = lambda step: np.array([0.0, 0.0, 2.0])  # noqa: E731
    alone = lambda step: np.zeros((3, 3), bool)  # noqa: E731
    found = lockstep(machines, alone, cost=slow, then=[Wait(cost=lambda step: np.full(3, 0.5))], steps=1)
    np.testing.assert_array_equal(found.sends[:, 0], 1.0)
    np.testing.assert_array_equal(found.time[:, 0], 3.5)
    assert barrier(machines, alone, workers=3, cost=slow, then=[Wait()], steps=2).time[-1] == 6.0


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        ((), "must be at least one thing, got none"),
        ((AllReduce(), Pairs()), "Pairs must be alone"),
        ((Server(), Neighbours("symmetric")), "Server must be alone"),
        ((Neighbours("symmetric"), Neighbours("symmetric")), "Neighbours may be given only once"),
        ((AllReduce(Reduction(participation=0.5)), AllReduce()), "only a part of the workers must be alone"),
    ],
)
def test_what_no_clock_can_put_one_after_the_other_is_refused(sends: Any, why: str) -> None:
    with pytest.raises(InputError, match=f"^sends: .*{why}"):
        gossip(source="here", sends=sends)


def test_who_reduces_with_all_cannot_run_without_barriers() -> None:
    gossip(source="here", sends=ALGORITHMS["averaging_gossip"].traits.sends, delayed=True)(averaging_gossip)
    with pytest.raises(InputError, match=r"^delay: averaging_gossip waits for all now and then"):
        resolved(delay="cluster")
