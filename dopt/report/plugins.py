"""All that is known of a plug-in, in words: equation, options, what it needs and accepts, what it sends, source, an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from typing import NamedTuple

import jax
import numpy as np

from dopt import algorithms, compression
from dopt.algorithms import ALGORITHMS, catalogue
from dopt.algorithms.traits import AllReduce, Exchange, Neighbours, Pairs, Server, Traits, matrix_kind
from dopt.cluster import machines
from dopt.compression import COMPRESSORS
from dopt.config import Run, accepts
from dopt.config.accepts import ASKS
from dopt.config.optimizers import OPTIMIZERS, parameters_of
from dopt.config.plain import asked
from dopt.config.runs import Runs
from dopt.data import SETS
from dopt.facts import facts_of
from dopt.problems import PROBLEMS
from dopt.registry import Entry, Option
from dopt.report import docstrings
from dopt.types import Coordination, InputError

NUMBERS = 1000  # of the model by which sizes of messages are told
MANY = 6  # names that are listed; of more, how many they are
PLAIN = ("--workers=8", "--learning_rate=0.1", "--steps=100")
QUADRATIC = "--problem=quadratic"
# values of options that must be given, in examples
GIVEN = {"delay.max": "8", "delay.value": "4", "cluster.file": "times.csv", "weights.edge": "0.2"}
LAZY = "symmetric, λ > -1/3"  # the kind of matrix that no default rule gives


class Row(NamedTuple):
    """An option: its dotted name, its type, its default, and what it means."""

    name: str
    kind: str
    default: str
    meaning: str


class Described(NamedTuple):
    """What is known of a plug-in. `facts`: (what, in words); `example`: the words of a command that works."""

    title: str
    summary: str
    equation: str
    options: list[Row]
    facts: list[tuple[str, str]]
    source: str
    example: list[str]


def described(kind: str, entry: Entry) -> Described:
    """A plug-in of a kind (`KINDS`), whose registry has it."""
    return KINDS[kind](entry)


# -- methods ----------------------------------------------------------------------------------------------------------


def _method(entry: Entry[Traits]) -> Described:
    name, has_operator = entry.name, "compressor" in entry.known
    rows = _rows("algorithm", entry, implied=catalogue.IMPLIED)
    facts = [("family", entry.traits.family), *_sends(entry), *_accepted(entry)]
    if has_operator:
        operators = ", ".join(COMPRESSORS)
        facts.append(("compressor", f"one of {operators}; its options are given as algorithm.fraction=0.1"))
    fitting = [f"--{field}={value}" for field, value in _fitting(entry).items()]
    words = [f"--algorithm={name}", *fitting, *_when(entry.traits), QUADRATIC, *PLAIN]
    return _described(name, "method", entry, rows, facts, words)


def _when(traits: Traits) -> list[str]:
    """What an example says of delays: what is the point of the method."""
    if traits.delayed or traits.staleness == "step":
        return ["--delay=4"]
    return ["--cluster=exponential"] if traits.family == "asynchronous" else []


def _fitting(entry: Entry[Traits]) -> dict[str, str]:
    """What a run must say for a method that does not take default weights."""
    return {"weights": "lazy"} if LAZY in _kinds(entry) else {}


def _kinds(entry: Entry[Traits]) -> list[str]:
    """The kinds of mixing matrix that a method takes; nothing where one of its options must be given, and says it."""
    try:
        exchange = entry.traits.exchange(algorithms.options(entry.name, {}), 8)
    except InputError:
        return []
    return [kind] if (kind := matrix_kind(exchange)) is not None else []


def _sends(entry: Entry[Traits]) -> list[tuple[str, str]]:
    """What a method sends with the defaults of its options, measured on a model."""
    run = Run.from_dict({"algorithm": entry.name, **accepts.PLAIN, **_fitting(entry), "problem.dim": NUMBERS})
    try:
        found = facts_of(Runs.of([run.resolve()]))
        exchange = entry.traits.exchange(algorithms.options(entry.name, {}), found.run(0, 0).workers)
    except InputError as error:  # an option without default
        return [("sends", f"what its options say ({error})")]
    model = 32 * NUMBERS
    lines = [_sent(one, [b / model for b in bits]) for one, bits in zip(exchange, found.sizes.bits, strict=True)]
    return [("sends", "; then ".join(lines))]


def _sent(one: Exchange, models: Sequence[float]) -> str:
    """One exchange in words; `models`: the size of each message, in models."""
    size = " and ".join(f"{x:.3g} model{'s' * (x != 1)}" for x in models)
    match one:
        case AllReduce(reduction):
            who = "all workers" if reduction.participation == 1 else f"{reduction.participation:.0%} of the workers"
            how = "gather" if reduction.gathers else "reduce"
            return f"{who} {how} {size} together, {_every(reduction.period)}"
        case Neighbours(_, _, rounds, period):
            again = f", {rounds} times" * (rounds > 1)
            return f"each worker sends {size} to each neighbour{again}, {_every(period)}"
        case Server(coordination):
            return f"a worker that has computed sends {size} to a server and gets the model back; {_coordinated(coordination)}"
        case Pairs():
            return f"a worker that has computed averages {size} with a random neighbour"


def _every(period: int) -> str:
    return "at each step" if period == 1 else f"at every {period} steps"


def _coordinated(told: Coordination) -> str:
    """When a server's update is made."""
    count = told.gradients
    said = ["each gradient is an update" if count in (None, 1) else f"{count} gradients make an update (of 8 workers)"]
    said += ["a worker that has sent waits for the update"] * told.waits
    said += [f"gradients staler than {told.limit} are dropped"] if told.limit is not None else []
    said += [f"a worker that is more than {told.slack} ahead waits"] if told.slack is not None else []
    said += [f"after {told.local_steps} local steps"] * (told.local_steps > 1)
    return ", ".join(said)


def _accepted(entry: Entry[Traits]) -> list[tuple[str, str]]:
    """What a method needs, and what it accepts."""
    name, traits = entry.name, entry.traits
    rows = [("needs", _needs(entry))] if algorithms.takes_mix(entry) else []
    refused = {other: why for other, why in accepts.optimizers(name).items() if why}
    rows.append(("optimizers", _optimizers(refused)))
    for part in ("delay", "link_loss", "cluster"):
        why = accepts.refusal(name, ASKS[part])
        rows.append((part, f"no: {_reason(why)}" if why else YES[part]))
    if traits.staleness == "edge" and traits.delayed:
        rows.append(("", "delay=cluster: the clock sets how old models are, and no worker waits"))
    return rows


YES = {
    "delay": "yes: a number of steps, or a law (`dopt list delays`)",
    "link_loss": "yes: the probability that a link fails at a step",
    "cluster": "yes: a law of compute times (`dopt list clusters`)",
}


def _needs(entry: Entry[Traits]) -> str:
    kinds = _kinds(entry)
    if "pairs" in kinds:
        return "a connected graph (`dopt list topologies`)"
    if "tree" in kinds:
        return "a graph, of which it takes a spanning tree (`dopt list topologies`)"
    what = f" whose mixing matrix W is {kinds[0]}" if kinds else ""
    return f"a graph{what} (`dopt list topologies`, `dopt list weights`)"


def _optimizers(refused: Mapping[str, str]) -> str:
    known = OPTIMIZERS
    if not refused:
        return "any (`dopt list optimizers`)"
    if len(refused) > len(known) // 2:
        taken = [name for name in known if name not in refused]
        return f"{', '.join(taken)} ({_reason(next(iter(refused.values())))})"
    return f"any but {', '.join(refused)}"


def _reason(line: str) -> str:
    """What an error says, without the name in front of it, the value that was tried, and the advice."""
    return re.split(r"; |, got ", line.partition(": ")[2] or line)[0]


# -- other plug-ins ---------------------------------------------------------------------------------------------------


def _optimizer(entry: Entry) -> Described:
    name = entry.name
    rows = []
    for parameter in parameters_of(name).values():
        wanted, _ = asked(parameter, None)
        if wanted is not None:
            rows.append(Row(f"optimizer.{parameter.name}", wanted, _default(parameter.default), ""))
    taken = accepts.methods(name)
    refusing = [method for method in ALGORITHMS if method not in taken]
    facts = [("methods", "all" if not refusing else f"all but {', '.join(refusing)}")]
    facts.append(("manual", f"https://optax.readthedocs.io: optax.{name}"))
    words = ["--algorithm=allreduce_sgd", QUADRATIC, f"--optimizer={name}", *PLAIN]
    made = _described(name, "optimizer", entry, rows, facts, words)
    return made._replace(equation="")  # optax's own docstrings are long, and written for a browser


def _compressor(entry: Entry) -> Described:
    name = entry.name
    facts = [("kind", KINDS_OF_COMPRESSOR[entry.traits["kind"]])] if "kind" in entry.traits else []
    if not any(option.is_needed for option in entry.described()):
        shape = {"x": jax.ShapeDtypeStruct((NUMBERS // 10, 10), np.float32)}
        bits = compression.make(name).bits(shape)
        facts.append(("sends", f"{bits} bits instead of {32 * NUMBERS}, for a 100 x 10 matrix of float32"))
    users = [method for method, other in ALGORITHMS.items() if "compressor" in other.known]
    facts.append(("methods", ", ".join(users)))
    words = ["--algorithm=choco_sgd", f"--algorithm.compressor={name}", *_given("algorithm", entry), QUADRATIC, *PLAIN]
    return _described(name, "compressor", entry, _rows("algorithm", entry), facts, words)


KINDS_OF_COMPRESSOR = {
    "exact": "exact: the message equals its input",
    "contraction": "a contraction, E‖C(x) - x‖² <= (1 - δ)‖x‖²: with error feedback, or in choco_sgd",
    "unbiased": "unbiased, E C(x) = x",
}


def _delay(entry: Entry) -> Described:
    rows = _rows("delay", entry)
    readers = [name for name in ALGORITHMS if accepts.accepts(name, "delay")]
    facts = [("methods", ", ".join(readers))]
    chosen = [f"--delay={entry.name}", *_given("delay", entry)]
    words = ["--algorithm=delayed_gossip_sgd", *chosen, QUADRATIC, *PLAIN]
    return _described(entry.name, "law of delays", entry, rows, facts, words)


def _cluster(entry: Entry) -> Described:
    others = [row for part in machines.PARTS for row in _rows("cluster", part)]
    profile = Row("cluster.profile", "str", "equal", f"speeds of the workers: {', '.join(machines.PROFILES)}")
    facts = [("methods", "all but those whose delay is drawn for each step (delayed_sgd)")]
    words = ["--algorithm=async_sgd", f"--cluster={entry.name}", *_given("cluster", entry), QUADRATIC, *PLAIN]
    rows = [*_rows("cluster", entry), profile, *others]
    return _described(entry.name, "law of compute times", entry, rows, facts, words)


def _problem(entry: Entry) -> Described:
    default = entry.traits["data"]
    facts = [("data", "none: it makes its own data")]
    if default is not None:
        kind = SETS[default].traits["kind"]
        facts = [("data", f"{_names(_of_kind(kind))}, of kind {kind} (default: {default})")]
    samples = entry.traits.get("eval_samples")
    if samples is not None:
        facts.append(("metrics", f"look at {samples} samples by default (eval_samples)"))
    if "layout" in entry.known:
        facts.append(("layouts", "a worker's model may lie on several devices (problem.layout)"))
    rate = "--learning_rate=0.01" if samples is not None else PLAIN[1]
    batch = ["--batch_size=16"] if default is not None else []
    words = ["--algorithm=gossip_sgd", f"--problem={entry.name}", *_given("problem", entry), *batch]
    words += [PLAIN[0], rate, *PLAIN[2:]]
    return _described(entry.name, "problem", entry, _rows("problem", entry), facts, words)


def _set(entry: Entry) -> Described:
    kind = entry.traits["kind"]
    learners = [
        name for name, one in PROBLEMS.items() if one.traits["data"] and SETS[one.traits["data"]].traits["kind"] == kind
    ]
    facts = [("kind", kind), ("problems", ", ".join(learners))]
    if "files" in entry.traits:
        options = {option.name: option.default for option in entry.described() if not option.is_needed}
        paths = entry.traits["files"](**options)
        facts += [
            ("file", f"{path}{'' if path.is_file() else ' (not there yet: downloaded when it is used)'}")
            for path in paths
        ]
    learner = learners[0] if kind != "classes" else "softmax"
    words = ["--algorithm=gossip_sgd", f"--problem={learner}", f"--data={entry.name}", *_given("data", entry)]
    return _described(entry.name, "data", entry, _rows("data", entry), facts, [*words, "--batch_size=16", *PLAIN])


def _partition(entry: Entry) -> Described:
    facts = [("problems", ", ".join(name for name, one in PROBLEMS.items() if one.traits["data"]))]
    chosen = [f"--partition={entry.name}", *_given("partition", entry)]
    words = ["--algorithm=gossip_sgd", "--problem=softmax", *chosen, "--batch_size=16", *PLAIN]
    return _described(entry.name, "partition of data", entry, _rows("partition", entry), facts, words)


def _weights(entry: Entry) -> Described:
    traits = entry.traits
    facts = [("graphs", "undirected" if traits.get("undirected") else "any, directed ones too")]
    facts += [("W is", f"{traits['stochastic']} stochastic")] if "stochastic" in traits else []
    facts += [("weights", "may be negative")] if traits.get("signed") else []
    facts += [("made by", "a convex solver: pip install dopt[weights]")] if traits.get("solver") == "convex" else []
    method, topology = FITTING.get(entry.name, ("gossip_sgd", "torus"))
    chosen = [f"--weights={entry.name}", *_given("weights", entry)]
    words = [f"--algorithm={method}", f"--topology={topology}", *chosen, QUADRATIC, "--workers=9", *PLAIN[1:]]
    return _described(entry.name, "weights", entry, _rows("weights", entry), facts, words)


FITTING = {  # weights -> (method, topology) that take them
    "given": ("gossip_sgd", "base_k"),
    "push": ("push_sum_sgd", "exponential"),
    "pull": ("push_pull", "exponential"),
}


def _topology(entry: Entry) -> Described:
    return _described(entry.name, "topology", entry, _rows("topology", entry), [], [])


# -- pieces -----------------------------------------------------------------------------------------------------------


def _described(
    name: str, what: str, entry: Entry, rows: list[Row], facts: list[tuple[str, str]], words: list[str]
) -> Described:
    summary, more = docstrings.said(entry.make)
    parts = [docstrings.equation(entry.make), more] if what in ("method", "problem", "data") else [more]
    text = "\n\n".join(filter(None, parts))
    example = [*run_with(entry), *words]
    return Described(f"{name} ({what})", summary, text, rows, facts, entry.source, example)


def run_with(entry: Entry) -> list[str]:
    """How a run begins that uses a plug-in: one from a file is imported."""
    return ["dopt", "run", *(["--import", entry.origin] if entry.origin.endswith(".py") else [])]


def _rows(prefix: str, entry: Entry, implied: Iterable[str] = ()) -> list[Row]:
    """The options of a plug-in."""
    meanings, options = docstrings.options(entry.make), entry.described(implied)
    return [Row(f"{prefix}.{one.name}", one.kind, _default(one.default), meanings.get(one.name, "")) for one in options]


def _default(value: object) -> str:
    """A default as it is written in a sweep file."""
    if value is Parameter.empty:
        return "needed"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _given(prefix: str, entry: Entry) -> list[str]:
    """Flags of the options that must be given."""
    needed: list[Option] = [one for one in entry.described() if one.is_needed]
    return [f"--{prefix}.{one.name}={GIVEN.get(f'{prefix}.{one.name}', '1')}" for one in needed]


def _of_kind(kind: str) -> list[str]:
    return [name for name, one in SETS.items() if one.traits["kind"] == kind]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MANY else f"any of {len(names)} sets (`dopt list data`)"


KINDS: dict[str, Callable[[Entry], Described]] = {  # by the name of their registry
    "algorithms": _method,
    "optimizers": _optimizer,
    "topologies": _topology,
    "weights": _weights,
    "compressors": _compressor,
    "delays": _delay,
    "clusters": _cluster,
    "problems": _problem,
    "data": _set,
    "partitions": _partition,
}

__all__ = ["Described", "Row", "described", "run_with"]
