"""A run's method, built: its local optimizer, its mixes, and what the harness hands it besides its own options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import optax
from jax import lax

from dopt import draws, mixing
from dopt.algorithms import ALGORITHMS, Method
from dopt.algorithms.traits import is_event_driven
from dopt.config import Resolved, make_optimizer, make_rate, options_of
from dopt.config.exchanges import exchange_of, traits_of
from dopt.facts.inputs import Inputs
from dopt.types import AXIS, Key, Whole


@dataclass(frozen=True)
class Building:
    """What a method is built of, besides the values of a run. Callable: inputs -> the method."""

    run: Resolved  # whose static fields all runs of a group have
    needs: str | None  # the kind of mixing matrix
    slots: int  # length of the ring of old models
    delayed: bool  # whether old models are kept
    optimizer: optax.GradientTransformation | None = None  # that was handed over

    def __call__(self, inputs: Inputs, mixes: tuple[mixing.Mix, ...] | None = None) -> Method:
        """The method. `mixes`: other ones than the matrices of `inputs` give."""
        run, known = self.run, ALGORITHMS[self.run.algorithm].known
        if self.needs not in (None, "pairs"):
            mixes = mixes or self.mixes(inputs)
        implied = {"slots": self.slots, "seed": inputs.seed, "modulus": inputs.modulus, "workers": run.workers}
        implied["distribution"] = inputs.delay
        options = options_of(run, "algorithm") | {name: value for name, value in implied.items() if name in known}
        method: Method = ALGORITHMS[run.algorithm].make(
            self._optimizer(inputs),
            mixes[0] if mixes and len(mixes) == 1 else mixes,
            learning_rate=make_rate(run, inputs.learning_rate),
            **options,
        )
        return method

    def _optimizer(self, inputs: Inputs) -> optax.GradientTransformation:
        if self.optimizer is not None:
            return self.optimizer
        made: optax.GradientTransformation = make_optimizer(
            self.run, inputs.learning_rate, partial(self._key, inputs.seed)
        )
        return made

    def mixes(self, inputs: Inputs) -> tuple[mixing.Mix, ...]:
        """A mix for each matrix."""
        loss = None
        if inputs.link_loss is not None:
            loss = mixing.LinkLoss(inputs.link_loss, **options_of(self.run, "link_loss"))
        forms = inputs.form if isinstance(inputs.form, tuple) else (inputs.form,)
        slots = self.slots if self.delayed else None
        return tuple(mixing.mix(form, slots=slots, ages=inputs.ages, loss=loss, seed=inputs.seed) for form in forms)

    def _key(self, seed: Whole, count: Whole) -> Key:
        """What an optimizer draws from: of each worker where each steps a model of its own, else common."""
        common = is_event_driven(exchange_of(self.run)) or traits_of(self.run).steps == "common"
        return draws.key(seed, draws.EVERYONE if common else lax.axis_index(AXIS), count, draws.UPDATES)
