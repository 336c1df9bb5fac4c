"""Which runs share one compilation: those with equal keys."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from dopt.algorithms.traits import is_event_driven
from dopt.config import UNTRACED, Resolved, Run
from dopt.config.exchanges import exchange_of, traits_of
from dopt.facts import ages, clock, facts_of, wiring

# fields that may differ within a group; whatever else differs starts another
TRACED = ("learning_rate", "seed", "topology", "weights", "delay", "link_loss", "cluster", "strict")
PREFIXES = ("topology.", "weights.", "delay.", "cluster.")  # of options that may, too


def key(run: Resolved) -> str:
    """The static description of a run: equal keys share one compilation."""
    traced = (*TRACED, *(f"algorithm.{name}" for name in traits_of(run).scheduled))
    static = {k: v for k, v in run.to_dict().items() if k not in traced and not k.startswith(PREFIXES)}
    if run.record_seconds is not None:
        plain = Resolved.of(run).at(0.1, 0)
        source = wiring.source(run) if wiring.has_matrix(run) else None
        static["record_every"] = _beat(json.dumps(plain.to_dict(), default=list), (clock.standing(run), source))
    if run.options.get("learning_rate.schedule") in UNTRACED:
        static["learning_rate"] = run.learning_rate
    if wiring.has_matrix(run) and wiring.needs_of(run) != "pairs":
        static["mix"] = wiring.described(run)
    static["delays"] = ages.form(run)
    if run.cluster is not None:
        static["clock"] = (
            "events" if is_event_driven(exchange_of(run)) else "turns" if run.delay == "cluster" else "barrier"
        )
    return json.dumps(static, sort_keys=True, default=list)


@lru_cache(maxsize=1024)
def _beat(description: str, stands: Any) -> int:
    """Steps between two records of a run, where they are given in seconds: its clock says how many. `stands`: as in `clock`."""
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(description).items()}
    return facts_of([Resolved.of(Run.from_dict(fields))]).every
