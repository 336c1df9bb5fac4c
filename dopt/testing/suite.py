"""Which checks a plug-in of a kind goes through, one after the other, each with what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from dopt import metrics, plugins
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.catalogue import IMPLIED
from dopt.cluster import LAWS
from dopt.compression import COMPRESSORS
from dopt.data import PARTITIONS, SETS
from dopt.delays import DELAYS
from dopt.mixing import WEIGHTS
from dopt.problems import PROBLEMS
from dopt.register import SPECIAL
from dopt.registry import Entry, Plugins, did_you_mean
from dopt.testing import kinds, methods
from dopt.testing.methods import Special
from dopt.testing.runs import Failed
from dopt.topology import TOPOLOGIES
from dopt.types import InputError

Given = Mapping[str, Any]  # options, by the names that a sweep file gives them
Check = Callable[[], None]
LONGEST_DELAY = 8  # of a law that must be told one


class Kind(NamedTuple):
    """A kind of plug-ins."""

    registry: Plugins[Any]
    prefix: str  # of its options in a sweep file
    checks: tuple[Callable[[Any, Any], None], ...]


KINDS: dict[str, Kind] = {
    "method": Kind(ALGORITHMS, "algorithm", ()),
    "topology": Kind(TOPOLOGIES, "topology", (kinds.graph_is_connected, kinds.graph_is_the_same_again)),
    "weights": Kind(WEIGHTS, "weights", (kinds.weights_sum_to_one, kinds.weights_follow_the_links)),
    "law": Kind(DELAYS, "delay", (kinds.probabilities_sum_to_one,)),
    "compressor": Kind(
        COMPRESSORS, "algorithm", (kinds.message_has_the_form_of_what_is_sent, kinds.message_is_what_its_kind_says)
    ),
    "problem": Kind(
        PROBLEMS,
        "problem",
        (kinds.problem_is_sound, kinds.gradient_is_that_of_the_loss, kinds.loss_is_a_mean_over_the_batch),
    ),
    "data": Kind(SETS, "data", (kinds.set_is_whole,)),
    "partition": Kind(PARTITIONS, "partition", (kinds.samples_belong_to_one_worker,)),
    "metric": Kind(metrics.METRICS, "metrics", (kinds.metric_is_a_number,)),
    "cluster": Kind(LAWS, "cluster", (kinds.quantiles_have_mean_one,)),
}
OF_METHODS = (
    methods.runs_and_stays_finite,
    methods.executors_agree,
    methods.another_rate_or_seed_compiles_nothing,
    methods.the_same_seed_is_the_same_trace,
    methods.another_seed_is_another_trace,
    methods.bytes_are_what_it_sends,
)


class Held(NamedTuple):
    """A check, and what it found."""

    what: str  # in words
    wrong: str | None  # one line; None: it holds


def checks(kind: str, name: str, given: Given | None = None) -> dict[str, Check]:
    """The checks that a plug-in must pass: words -> the check, which raises `Failed`.

    Args:
      kind: as `dopt.register` calls it: method, topology, weights, law, ...
      name: of the plug-in.
      given: options, as a sweep file names them (`{"topology.bridges": 2}`); of a method any fields of its run.

    Raises:
      InputError: an unknown kind or name, or an option that is needed and not given.
    """
    if kind not in KINDS:
        raise InputError(f"kind: unknown name {kind!r}{did_you_mean(kind, KINDS)}")
    entry, given = KINDS[kind].registry[name], given or {}
    return _of_method(entry, given) if kind == "method" else _of_other(KINDS[kind], entry, given)


def _of_method(entry: Entry[Any], given: Given) -> dict[str, Check]:
    fields = methods.fields_of(entry.name, given)
    found: dict[str, Check] = {_words(check): partial(check, fields) for check in OF_METHODS}
    special = {f"special case: {one.name}": partial(methods.check_special, fields, one) for one in special_of(entry)}
    return found | special


def special_of(entry: Entry[Any]) -> list[Special]:
    """The special cases that a method was registered with."""
    return [
        Special(" ".join(f"{key}={value}" for key, value in changes.items()), dict(equals), changes=dict(changes))
        for changes, equals in SPECIAL.get(entry.name, ())
    ]


def _of_other(kind: Kind, entry: Entry[Any], given: Given) -> dict[str, Check]:
    own = {name.removeprefix(f"{kind.prefix}."): value for name, value in given.items() if name in _names(kind, entry)}
    if kind.registry is DELAYS and "max" in entry.known:
        own = {"max": LONGEST_DELAY, **own}
    options = entry.options(own, kind.prefix, IMPLIED)
    return {_words(check): partial(check, entry, options) for check in kind.checks}


def _names(kind: Kind, entry: Entry[Any]) -> set[str]:
    return {f"{kind.prefix}.{name}" for name in entry.known}


def _words(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ")


def held(kind: str, name: str, given: Given | None = None) -> Iterator[Held]:
    """Make all checks, one after the other; a plug-in that raises anything has failed that one.

    Raises:
      InputError: as of `checks`.
    """
    for what, one in checks(kind, name, given).items():
        yield Held(what, wrong(one))


def wrong(check: Check) -> str | None:
    """What a check finds, in one line; None: it holds."""
    try:
        check()
    except Failed as error:
        return str(error)
    except Exception as error:  # of a plug-in it may be any
        line = None if isinstance(error, InputError) else plugins.line_of(error)
        return line or f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    return None


def check(kind: str, name: str, given: Given | None = None) -> None:
    """Make all checks of a plug-in.

    Raises:
      Failed: the first that does not hold.
      InputError: as of `checks`.
    """
    for one in checks(kind, name, given).values():
        one()


def registered(named: str) -> list[tuple[str, str]]:
    """(kind, name) of all that a file or a module has registered, which was imported before."""
    return [
        (kind, name)
        for kind, known in KINDS.items()
        for name, entry in known.registry.items()
        if plugins.is_of(entry.make, named)
    ]
