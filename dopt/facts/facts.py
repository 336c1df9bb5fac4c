"""All that follows from resolved runs on the host, made once for each distinct value and handed down.

Runs that differ in their learning rate only share everything; those that differ in their seed, too, share all but what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import numpy as np
import optax

from dopt import delays, flags, mixing
from dopt.config import Resolved
from dopt.config.exchanges import needs_of
from dopt.config.identity import around
from dopt.config.matrices import notes_on, own_matrix, wanted
from dopt.config.runs import Runs
from dopt.facts import ages, clock, shards, wiring
from dopt.facts import problem as of_problem
from dopt.facts.inputs import Data
from dopt.facts.method import Building
from dopt.facts.replays import Replay
from dopt.facts.sizes import Sizes, sizes
from dopt.topology.sequences import Matchings
from dopt.types import InputError, Problem, Tree

T = TypeVar("T")
P = ParamSpec("P")


def once(make: Callable[Concatenate[Facts, P], T]) -> Callable[Concatenate[Facts, P], T]:
    """A method of `Facts` whose answer is made once for each of its arguments."""

    @wraps(make)
    def asked(facts: Facts, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (make, args, *kwargs.items())
        if key not in facts._made:
            facts._made[key] = make(facts, *args, **kwargs)
        made: T = facts._made[key]
        return made

    return asked


@dataclass(frozen=True, eq=False)
class Facts:
    """What runs of one group stand for. A *template* is a run without its learning rate and seed.

    Whatever takes `template` takes its number in `runs.templates`.
    """

    runs: Runs
    one: Runs  # the first of them alone, whose static fields all have
    problem: Problem
    graph: Any  # what was handed over in place of a topology, or None
    own_matrix: Any  # its mixing matrix
    start: Tree  # models to start from, leaves [workers, ...]; None: each worker makes its own
    model: Tree  # one worker's, as shapes
    staleness: str | None
    building: Building
    sizes: Sizes
    every: int  # steps between two records
    notes: tuple[str, ...]
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def first(self) -> Resolved:
        """A run whose static fields all have."""
        return self.building.run

    @property
    def dtype(self) -> np.dtype:
        return of_problem.dtype_of(self.first)

    @property
    def parts(self) -> int:
        """Devices over which a model is laid."""
        return 1 if self.problem.layout is None else self.problem.layout.parts

    # -- for each template --

    @once
    def matrix(self, template: int) -> Any:
        """W: [n, n], dense or sparse, a period [period, n, n], random `Matchings`, or a pair (R, C); None: the method has none."""
        return wanted(self.runs.templates[template], self.own_matrix)

    @cached_property
    def _alike(self) -> dict[int, int]:
        """Template -> the first one that has the very same W: what follows from W is made once."""
        first: dict[int, int] = {}
        return {number: first.setdefault(id(self.matrix(number)), number) for number in self.runs.used.tolist()}

    def gap(self, template: int) -> float:
        """The spectral gap of W, of R where there are two; NaN without one, or where it was not found."""
        return self._gap(self._alike[template])

    @once
    def _gap(self, template: int) -> float:
        w = self.matrix(template)
        return float("nan") if w is None else mixing.spectral_gap(w[0] if isinstance(w, tuple) else w)

    @once
    def modulus(self, template: int) -> float:
        """‖W - J‖₂."""
        found = mixing.second_modulus(self.matrix(template))
        if math.isnan(found):
            raise InputError(
                f"weights: ‖W - J‖₂ of {self.runs.templates[template].workers} workers was not found, which chebyshev needs; use fewer workers"
            )
        return found

    @once
    def delay(self, template: int) -> np.ndarray:
        """[slots] the law of the delay, as a distribution function."""
        return delays.cumulative(ages.table(self.runs.templates[template]), self.building.slots)

    def is_random_graph(self, template: int) -> bool:
        """Whether who talks to whom is drawn from the seed."""
        return isinstance(self.matrix(template), Matchings)

    def draws(self, template: int) -> bool:
        """Whether something else than batches and starts is drawn from the seed: the clock, the graph, or how old models are."""
        drawn = self.runs.templates[template].cluster is not None or self.staleness == "fixed"
        return drawn or self.is_random_graph(template)

    def kinds(self, runs: Runs) -> tuple[list[tuple[int, int]], np.ndarray]:
        """(each distinct template and seed among runs of the group; [runs] which of them): the seed is 0 where nothing is drawn."""
        template = self.numbers(runs)
        seed = np.where(self.drawing[template], runs.seed, 0)
        number: dict[tuple[int, int], int] = {}
        kind = [number.setdefault(which, len(number)) for which in zip(template.tolist(), seed.tolist(), strict=True)]
        return list(number), np.array(kind)

    @cached_property
    def drawing(self) -> np.ndarray:
        """[templates] bool: `draws` of those that have a run here."""
        found = np.zeros(len(self.runs.templates), bool)
        for number in self.runs.used.tolist():
            found[number] = self.draws(number)
        return found

    # -- for each template and seed --

    def run(self, template: int, seed: int) -> Resolved:
        """A run of that template and seed; its learning rate is anybody's."""
        found = self.runs.templates[template]
        return found.at(found.learning_rate, seed)

    @once
    def link_ages(self, template: int, seed: int) -> np.ndarray:
        """[n, n] int32: how old each reader reads each sender, for good."""
        return ages.of_links(self.run(template, seed), self.matrix(template), self.graph)

    def forms(self, template: int, seed: int, iterations: int) -> tuple[mixing.Form, ...]:
        """The forms in which W runs, in the run's precision."""
        return self._forms(self._alike[template], seed if self.is_random_graph(template) else 0, iterations)

    @once
    def _forms(self, template: int, seed: int, iterations: int) -> tuple[mixing.Form, ...]:
        with flags.fixed(self.dtype == np.float64):  # random graphs are drawn by JAX
            found = wiring.forms(self.run(template, seed), self.matrix(template), iterations)
        cast: tuple[mixing.Form, ...] = jax.tree.map(lambda x: shards.cast(x, self.dtype), found)
        return cast

    def replay(self, template: int, seed: int) -> Replay:
        """What the loop replays: the run's clock."""
        return self._replay(template, seed if self.draws(template) else 0)

    @once
    def _replay(self, template: int, seed: int) -> Replay:
        return clock.replayed(self.run(template, seed), self.matrix(template), self.sizes.bits, self.every)

    @cached_property
    def replays(self) -> list[Replay]:
        """Those of all runs, each once."""
        return [self.replay(*which) for which in self.kinds(self.runs)[0]]

    @once
    def axes(self, template: int, seed: int) -> dict[str, np.ndarray]:
        """What of a run's history follows from its clock: step, gradients, time and bytes_sent at each record, and ages."""
        replay = self.replay(template, seed)
        steps = clock.record_steps(self.every, replay.length)
        messages = clock.messages_of(self.run(template, seed), self.matrix(template), self.sizes)
        return {"step": steps, **replay.axes(steps), **replay.sent(steps, messages)}

    # -- for all --

    @cached_property
    def optimum(self) -> float | None:
        """f*, where it is known, asked for, and comparable with what metrics look at."""
        return of_problem.optimum(self.first, self.problem)

    @cached_property
    def data(self) -> Data:
        """What each worker holds."""
        run = self.first
        return shards.split(self.problem, self.dtype, run.eval_samples, full=run.batch_size is None)

    @cached_property
    def test(self) -> Tree:
        """The held-out samples that metrics look at."""
        return of_problem.test_of(self.first, self.problem)

    def numbers(self, runs: Runs) -> np.ndarray:
        """[runs] the template of each of some runs of the group."""
        if runs.templates is self.runs.templates:
            return runs.template
        known = {around(self.runs.templates[number]): number for number in self.runs.used.tolist()}
        mine = np.full(len(runs.templates), -1, np.int32)
        for number in runs.used.tolist():
            mine[number] = known[around(runs.templates[number])]
        found: np.ndarray = mine[runs.template]
        return found


def facts_of(
    runs: Sequence[Resolved],
    *,
    problem: Problem | None = None,
    graph: Any = None,
    start: Tree = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Facts:
    """What runs with equal keys stand for; every check is made that needs no devices.

    Args:
      runs: of one group.
      problem, graph, start, optimizer: what stands in for fields, as for `dopt.run`.

    Raises:
      InputError: something does not fit.
    """
    flags.check()
    runs = Runs.of(runs)
    one, kinds = runs[:1], runs.kinds
    (first,) = one
    needs = needs_of(first)
    own = None if graph is None else own_matrix(graph, first)
    w = wanted(first, own)
    of_network = notes_on(kinds, graph)
    for run in kinds if needs is not None else ():
        wiring.check_wanted(run, own)
    made = of_problem.checked(first, problem)
    notes = (*of_problem.notes(first, made, problem is not None), *ages.notes(first), *of_network)
    model = of_problem.model_of(first, made)
    begun = of_problem.start_of(first, made, start, model)
    kind = ages.staleness(kinds)
    building = Building(first, needs, ages.slots(runs, kind, own, graph), ages.is_kept(kind), optimizer)
    measured = sizes(building, made, model)
    timed = first.record_seconds is not None
    every = clock.every_of(first, w, measured.bits) if timed else first.record_every or 1
    if problem is None:
        of_problem.check_drawn(first, made)
    return Facts(runs, one, made, graph, own, begun, model, kind, building, measured, every, notes)
