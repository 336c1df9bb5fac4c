'''Your own methods, topologies, weights, laws, compressors, problems, data, partitions, metrics and clusters.

There is a decorator for each kind, and all work the same way: they register a function under its own name, with or without
parentheses,

    import networkx as nx
    import dopt

    @dopt.register.topology
    def two_rings(workers, *, bridges: int = 1):
        """Two rings with a few edges between them."""
        half = workers // 2
        graph = nx.disjoint_union(nx.cycle_graph(half), nx.cycle_graph(workers - half))
        graph.add_edges_from((i, half + i) for i in range(bridges))
        return graph

and then `topology: two_rings` and `topology.bridges: 2` work like any other. Options are keyword-only parameters; their
type annotations are checked. The first line of the docstring is what `dopt list` says. A file of such functions is named by
`imports: {value: [my_file.py]}` in a sweep file, by `dopt ... --import my_file.py`, or by DOPT_IMPORT; a package offers its
modules by the entry-point group `dopt.plugins`. `dopt test-plugin my_file.py` tries what a file registers.

All of them take `name` (else the function's own) and `source` (who had the idea), and raise InputError where the name is
taken, or where the function cannot be called as dopt will call it.
'''

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

from dopt import metrics
from dopt.algorithms import traits as of_methods
from dopt.algorithms.method import register as _register_method
from dopt.algorithms.traits import AllReduce, Neighbours, Pairs, Sends, Server, Traits
from dopt.cluster import LAWS
from dopt.compression import COMPRESSORS
from dopt.data import PARTITIONS, SETS
from dopt.delays import DELAYS
from dopt.mixing import WEIGHTS
from dopt.problems import PROBLEMS
from dopt.registry import Make, Registry, did_you_mean
from dopt.topology import TOPOLOGIES
from dopt.types import InputError

SpecialCase = tuple[Mapping[str, object], Mapping[str, object]]
SPECIAL: dict[str, Sequence[SpecialCase]] = {}  # method -> what it says that it is with some options
Decorator = Callable[[Make], Make]
Function = Callable[..., object]

USUAL: dict[type, dict[str, Any]] = {  # what a method that exchanges so is told, where it says nothing else
    AllReduce: {"family": "synchronous"},
    Neighbours: {"family": "gossip", "staleness": "edge", "steps": "own"},
    Server: {"family": "asynchronous"},
    Pairs: {"family": "asynchronous", "steps": "own"},
}
ORDER = (Server, Pairs, Neighbours, AllReduce)  # of several exchanges the first of these says what is usual


def method(
    *,
    sends: Sends | Callable[[of_methods.Options, int], Sends],
    name: str | None = None,
    source: str = "",
    special: Sequence[SpecialCase] = (),
    **told: object,
) -> Callable[[Make], Make]:
    '''Register a method: a function that makes an optax transformation of one worker's view.

    Example::

        import jax, dopt
        from dopt.algorithms import Neighbours

        @dopt.register.method(
            sends=Neighbours("doubly stochastic"),
            special=[({"algorithm.part": 1.0}, {"algorithm": "gossip_sgd"})],
        )
        def careful_gossip(optimizer, mix, *, learning_rate=None, part: float = 0.5):
            """X <- X + part (W X - X) + u(G): gossip that moves only part of the way."""

            def init(params):
                return optimizer.init(params), mix.init(params)

            def update(grads, state, params, **extra):
                inner, mixing = state
                updates, inner = optimizer.update(grads, inner, params)
                moved, mixing = mix.apply(params, mixing, **extra)  # W x - x
                return jax.tree.map(lambda u, m: u + part * m, updates, moved), (inner, mixing)

            return dopt.Method(init, update)

    Args:
      sends: what a worker exchanges in a step: `dopt.algorithms.AllReduce()`, `Neighbours(kind)`, `Server()`, `Pairs()`, a tuple
        of them, or (options, workers) -> that. A method that sends to neighbours gives `mix` no default; others take `mix=None`.
      name: else the function's own.
      source: the paper.
      special: pairs (changes, fields): with these changes, a run of the method equals the run of those fields; `dopt test-plugin` checks it.
      **told: what else `dopt.algorithms.traits.Traits` says, as `needs_linear_update=True`; defaults follow from what it exchanges,
        but `family` must be given if `sends` is a function.

    Raises:
      InputError: the name is taken, a trait is unknown, or the function does not take (optimizer, mix, *, learning_rate).
    '''

    def add(make: Make) -> Make:
        _takes("method", make, ("optimizer", "mix"), ("learning_rate",))
        exchanged = () if callable(sends) else sends if isinstance(sends, tuple) else (sends,)
        usual = next((USUAL[kind] for kind in ORDER if any(isinstance(one, kind) for one in exchanged)), {})
        fields = {"source": source, "sends": sends, **usual, **told}
        known = typing.get_type_hints(Traits)
        for each in fields:
            if each not in known:
                raise InputError(f"method: unknown trait {each!r}{did_you_mean(each, known)}")
        if "family" not in fields:
            raise InputError("method: family must be synchronous, asynchronous or gossip where sends is a function")
        _register_method(make, Traits(**fields), name)
        SPECIAL[name or make.__name__] = special
        return make

    return add


@overload
def topology(make: Make, /) -> Make: ...
@overload
def topology(*, name: str | None = None, source: str = "", **traits: object) -> Decorator: ...
def topology(make: Function | None = None, /, *, name: str | None = None, source: str = "", **traits: object) -> Any:
    '''Register a topology: (workers, *, options) -> a connected networkx graph of so many nodes.

    An edge (u, v) of a DiGraph says that u sends to v. A `dopt.topology.Periodic` of graphs is fine, too.

    Example::

        import networkx as nx, dopt

        @dopt.register.topology(source="here")
        def caterpillar(workers, *, legs: int = 1):
            """A path; each of its workers has so many leaves."""
            spine = max(1, workers // (1 + legs))
            graph = nx.path_graph(spine)
            graph.add_edges_from((i, i % spine) for i in range(spine, workers))
            return graph

    Args:
      name: else the function's own.
      source: the paper.
      **traits: `bytes`: (workers, **options) -> bytes of its edges, and `degree`: workers -> links of one worker, both for large graphs;
        `layout`, how `dopt show topology` draws it, as "grid".
    '''
    return _registered(TOPOLOGIES, make, ("workers",), name, source, traits)


@overload
def weights(make: Make, /) -> Make: ...
@overload
def weights(*, name: str | None = None, source: str = "", **traits: object) -> Decorator: ...
def weights(make: Function | None = None, /, *, name: str | None = None, source: str = "", **traits: object) -> Any:
    '''Register a rule for mixing weights: (graph, *, options) -> W [n, n], a NumPy or SciPy sparse array whose rows sum to one.

    W[i, j] is what worker i gives worker j's model: zero where j sends nothing to i.

    Example::

        import networkx as nx, numpy as np, dopt

        @dopt.register.weights(source="here", undirected=True)
        def timid(graph, *, share: float = 0.5):
            """share / d_max on each edge, the rest to oneself."""
            a = nx.to_numpy_array(graph, nodelist=range(len(graph)), weight=None)
            w = share * a / a.sum(1).max()
            return w + np.diag(1 - w.sum(1))

    Args:
      name: else the function's own.
      source: the paper.
      **traits: `undirected=True` (it takes no directed graph), `stochastic="row"` or `"column"` (else both), `signed=True` (weights may be negative).
    '''
    return _registered(WEIGHTS, make, ("graph",), name, source, traits)


@overload
def law(make: Make, /) -> Make: ...
@overload
def law(*, name: str | None = None, source: str = "") -> Decorator: ...
def law(make: Function | None = None, /, *, name: str | None = None, source: str = "") -> Any:
    '''Register a law of delays: (*, max, options) -> [max + 1] probabilities of 0..max steps, which sum to one.

    Example::

        import numpy as np, dopt

        @dopt.register.law
        def all_or_nothing(*, max: int, share: float = 0.1):
            """No delay, except for a share of the messages, which are `max` steps old."""
            table = np.zeros(max + 1)
            table[0] += 1 - share
            table[max] += share
            return table

    Use it with `delay: all_or_nothing` and `delay.max: 8`.
    '''
    return _registered(DELAYS, make, (), name, source, {})


@overload
def compressor(make: Make, /) -> Make: ...
@overload
def compressor(
    *, kind: Literal["contraction", "unbiased", "exact"], name: str | None = None, source: str = ""
) -> Decorator: ...
def compressor(
    make: Function | None = None, /, *, kind: str = "contraction", name: str | None = None, source: str = ""
) -> Any:
    '''Register an operator that shrinks messages: (*, options) -> `dopt.compression.Compressor`.

    Example::

        import jax, jax.numpy as jnp, dopt
        from dopt.compression import Compressor

        @dopt.register.compressor(kind="contraction")
        def halves(*, bits: int = 16):
            """Each number rounded to float16."""

            def apply(tree, state, key):
                return jax.tree.map(lambda x: x.astype(jnp.float16).astype(x.dtype), tree), state

            return Compressor(lambda tree: (), apply, lambda tree: sum(bits * x.size for x in jax.tree.leaves(tree)))

    Args:
      kind: what `dopt test-plugin` checks: "contraction" (‖C(x) - x‖ < ‖x‖), "unbiased" (E C(x) = x) or "exact" (C(x) = x).
      name: else the function's own; use it with `algorithm.compressor`.
      source: the paper.
    '''
    _word("compressor", "kind", kind, ("contraction", "unbiased", "exact"))
    return _registered(COMPRESSORS, make, (), name, source, {"kind": kind})


@overload
def problem(make: Make, /) -> Make: ...
@overload
def problem(*, data: str | None = None, name: str | None = None, source: str = "", **traits: object) -> Decorator: ...
def problem(
    make: Function | None = None,
    /,
    *,
    data: str | None = None,
    name: str | None = None,
    source: str = "",
    **traits: object,
) -> Any:
    '''Register a problem: (shards, workers, *, options) -> `dopt.Problem`.

    `shards` (`dopt.problems.Shards`: train, counts, test, classes) is the data split over the workers; None without `data`.

    Example::

        import jax.numpy as jnp, numpy as np, dopt

        @dopt.register.problem
        def valley(shards, workers, *, steep: float = 10.0):
            """fᵢ(x) = ½ steep (x₀ - cᵢ)² + ½ x₁², a valley whose middle differs from worker to worker."""

            def loss(x, batch):
                return jnp.mean(0.5 * steep * (x[0] - batch["middle"]) ** 2 + 0.5 * x[1] ** 2)

            middle = np.linspace(-1, 1, workers)[:, None]  # [workers, samples]
            return dopt.Problem(lambda key: jnp.ones(2), loss, {"middle": middle})

    Args:
      data: the set it learns from by default, as "digits"; any other set of that kind works, too. None: it needs none.
      name: else the function's own.
      source: the paper.
      **traits: `eval_samples`, how many samples metrics look at by default; `bytes`, (workers, **options) -> bytes of the made problem.
    '''
    return _registered(PROBLEMS, make, ("shards", "workers"), name, source, {"data": data, **traits})


@overload
def data(make: Make, /) -> Make: ...
@overload
def data(
    *,
    kind: Literal["classes", "text", "ratings"] = "classes",
    name: str | None = None,
    source: str = "",
    **traits: object,
) -> Decorator: ...
def data(
    make: Function | None = None,
    /,
    *,
    kind: str = "classes",
    name: str | None = None,
    source: str = "",
    **traits: object,
) -> Any:
    '''Register a set of data: (*, options) -> `dopt.data.Dataset` of train and test {"x", "y"} and the number of classes.

    Example::

        import numpy as np, dopt
        from dopt.data import Dataset

        @dopt.register.data
        def blobs(*, samples: int = 200, seed: int = 0):
            """Two clouds in the plane."""
            rng = np.random.default_rng(seed)
            y = np.arange(samples, dtype=np.int32) % 2
            x = rng.standard_normal((samples, 2)) + 2 * y[:, None]
            return Dataset({"x": x, "y": y}, None, classes=2)

    Args:
      kind: what a sample is, and so which problems can learn from it: "classes" (x [d] float64, y int32), "text" or "ratings".
      name: else the function's own.
      source: the paper.
      **traits: `files`, (**options) -> the paths that it reads, whose content becomes part of a run's id.
    '''
    _word("data", "kind", kind, ("classes", "text", "ratings"))
    return _registered(SETS, make, (), name, source, {"kind": kind, **traits})


@overload
def partition(make: Make, /) -> Make: ...
@overload
def partition(*, name: str | None = None, source: str = "") -> Decorator: ...
def partition(make: Function | None = None, /, *, name: str | None = None, source: str = "") -> Any:
    '''Register a split of data over workers: (labels [N], workers, *, options) -> for each worker the indices of its samples.

    Every sample belongs to one worker, and no worker is empty.

    Example::

        import numpy as np, dopt

        @dopt.register.partition
        def striped(labels, workers):
            """Worker i has samples i, i + n, i + 2n, ..."""
            return [np.arange(i, len(labels), workers) for i in range(workers)]
    '''
    return _registered(PARTITIONS, make, ("labels", "workers"), name, source, {})


@overload
def metric(make: Make, /) -> Make: ...
@overload
def metric(*, of: Literal["mean", "models"] = "mean", name: str | None = None, source: str = "") -> Decorator: ...
def metric(make: Function | None = None, /, *, of: str = "mean", name: str | None = None, source: str = "") -> Any:
    '''Register a metric: (models, problem) -> a scalar, traced by JAX; it is recorded where `metrics` names it.

    `problem` is the run's `dopt.Problem`: its `loss`; `test`, held-out samples; `data`, arrays that become part of the program.

    Example::

        import jax, jax.numpy as jnp, dopt

        @dopt.register.metric(of="models")
        def farthest(models, problem):
            """maxᵢ ‖xᵢ - x̄‖."""
            apart = [jnp.sum((x - x.mean(0)) ** 2, range(1, x.ndim)) for x in jax.tree.leaves(models)]
            return jnp.sqrt(jnp.max(sum(apart)))

    Args:
      of: what it takes: "mean", the mean model; "models", all models, leaves [workers, ...].
      name: else the function's own.
      source: the paper.
    '''
    _word("metric", "of", of, ("mean", "models"))

    def add(make: Make) -> Make:
        own = name or make.__name__
        if own in (*metrics.CHOICES, *metrics.OF_PROBLEMS, *metrics.TAKEN):
            raise InputError(f"metric: the name {own!r} is taken already, by dopt; choose another name")
        _registered(metrics.METRICS, make, ("models", "problem"), name, source, {"of": of})
        return make

    return add if make is None else add(make)


@overload
def cluster(make: Make, /) -> Make: ...
@overload
def cluster(*, name: str | None = None, source: str = "") -> Decorator: ...
def cluster(make: Function | None = None, /, *, name: str | None = None, source: str = "") -> Any:
    '''Register a law of compute times: (u, *, options) -> seconds, the quantile function of a law of mean 1 s.

    u: uniform numbers in [0, 1), any shape; all laws get the same numbers, so they are compared on the same random draws.

    Example::

        import numpy as np, dopt

        @dopt.register.cluster
        def two_speeds(u, *, slow: float = 4.0, share: float = 0.1):
            """A share of the computations takes `slow` times as long as the others."""
            return np.where(u < 1 - share, 1.0, slow) / (1 - share + share * slow)
    '''
    return _registered(LAWS, make, ("u",), name, source, {})


def _registered(
    registry: Registry,
    make: Function | None,
    takes: Sequence[str],
    name: str | None,
    source: str,
    traits: Mapping[str, object],
) -> Any:
    """The function, registered; or, where there are parentheses, what registers it."""

    def add(make: Make) -> Make:
        _takes(registry.what, make, takes, ())
        return registry.register(name=name, source=source, **traits)(make)

    return add if make is None else add(make)


def _takes(what: str, make: Function, takes: Sequence[str], keywords: Sequence[str]) -> None:
    """Refuse a function that cannot be called as dopt will call it."""
    wanted = f"({', '.join([*takes, '*', *keywords, 'options'])})"
    if not callable(make):
        raise InputError(f"{what}: must be a function {wanted}, got {make!r}")
    signature = inspect.signature(make)
    called = getattr(make, "__name__", repr(make))
    own = signature.parameters.values()
    free = {p.name: None for p in own if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    try:
        signature.bind(
            *(None for _ in takes), **dict.fromkeys(keywords), **{k: v for k, v in free.items() if k not in keywords}
        )
        typing.get_type_hints(make)
    except (TypeError, NameError) as error:
        raise InputError(f"{what}: {called} must take {wanted}, options by keyword; {error}") from None


def _word(what: str, name: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise InputError(f"{what}: {name} must be one of {', '.join(known)}, got {given!r}{did_you_mean(given, known)}")


__all__ = [
    "cluster",
    "compressor",
    "data",
    "law",
    "method",
    "metric",
    "partition",
    "problem",
    "topology",
    "weights",
]
