"""What plug-ins of all other kinds hold: a topology is a connected graph, a law's probabilities sum to one, a gradient is that of the loss, ..."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jax.flatten_util import ravel_pytree

from dopt import code, data, delays, draws, flags, mixing, topology
from dopt.config.identity import graph_digest, matrix_digest
from dopt.data.base import SETS
from dopt.problems import Shards, sound
from dopt.registry import Entry
from dopt.testing.runs import Failed, least_squares
from dopt.types import InputError, Problem

Plugin = Entry[Mapping[str, Any]]
Options = Mapping[str, Any]

SIZES = (4, 5, 8, 16)  # workers
DRAWS = 4000  # messages of an unbiased operator
GRID = 200_000  # points of a quantile function
STEP = 1e-6  # of a finite difference, in float64
TAIL = 0.03  # of a law's mean, beyond the grid


def _twice(make: Callable[[], Any], digest: Callable[[Any], str], what: str) -> Any:
    made = make()
    if digest(made) != digest(make()):
        raise Failed(f"{what} differs from call to call; make random draws depend on an option, as `seed`")
    return made


# -- topologies and weights --------------------------------------------------------------------------------------------


def graphs(entry: Plugin, options: Options) -> dict[int, Any]:
    """Workers -> the graph, of those numbers of workers for which there is one."""
    found: dict[int, Any] = {}
    said = ""
    for workers in SIZES:
        try:
            found[workers] = topology.make(entry.name, workers, **options)
        except InputError as error:
            said = str(error)
    if not found:
        raise Failed(f"there is no graph of {', '.join(map(str, SIZES))} workers; {said}")
    return found


def graph_is_connected(entry: Plugin, options: Options) -> None:
    """Every worker hears of every other, over however many links; of graphs that take turns, in their union."""
    for workers, network in graphs(entry, options).items():
        links: Any = network
        if not isinstance(network, topology.Matchings):
            links = np.stack([topology.adjacency(graph) for graph in getattr(network, "graphs", (network,))])
        if not mixing.is_connected(links):
            raise Failed(f"the graph of {workers} workers is not connected")


def graph_is_the_same_again(entry: Plugin, options: Options) -> None:
    """The same options give the same graph."""
    workers = next(iter(graphs(entry, options)))
    digest = matrix_digest if isinstance(graphs(entry, options)[workers], topology.Matchings) else graph_digest
    _twice(lambda: topology.make(entry.name, workers, **options), digest, f"the graph of {workers} workers")


def _matrix(entry: Plugin, options: Options, graph: Any) -> np.ndarray:
    made = entry.make(graph, **options)
    try:
        return mixing.dense(mixing.as_array(made, len(graph)))
    except InputError as error:
        raise Failed(f"on a graph of {len(graph)} workers: {error}") from None


def _graphs_for(entry: Plugin) -> list[nx.Graph[Any]]:
    found: list[nx.Graph[Any]] = [nx.cycle_graph(8), nx.star_graph(5), nx.complete_graph(4)]
    return found if entry.traits.get("undirected") else [*found, nx.DiGraph([(i, (i + 1) % 6) for i in range(6)])]


def weights_sum_to_one(entry: Plugin, options: Options) -> None:
    """Rows of W sum to one, or columns where it says so, and no weight is negative unless it says so."""
    wanted = entry.traits.get("stochastic")
    for graph in _graphs_for(entry):
        w = _matrix(entry, options, graph)
        if wanted != "column" and not mixing.is_stochastic(w, 1):
            raise Failed(f"rows must sum to one on {len(graph)} workers; say stochastic='column' if columns do")
        if wanted == "column" and not mixing.is_stochastic(w, 0):
            raise Failed(f"it declares that columns sum to one, but on {len(graph)} workers they do not")
        if not entry.traits.get("signed") and w.min() < 0:
            raise Failed(f"a weight is {w.min():.3g} on {len(graph)} workers; say signed=True if that is meant")


def weights_follow_the_links(entry: Plugin, options: Options) -> None:
    """W is zero where nothing is sent, and lets all workers agree."""
    for graph in _graphs_for(entry):
        w = _matrix(entry, options, graph)
        there = topology.adjacency(graph)
        if np.any((w != 0) & ~there & ~np.eye(len(w), dtype=bool)):
            raise Failed(
                f"on {len(graph)} workers W has a weight where no link is; W[i, j] is the weight that i gives to the model of j, which sends to i"
            )
        if not mixing.is_connected(w):
            raise Failed(f"on {len(graph)} workers W leaves out links that are needed to connect all workers")


# -- laws --------------------------------------------------------------------------------------------------------------


def probabilities_sum_to_one(entry: Plugin, options: Options) -> None:
    """A law of delays is a table of probabilities of 0..max steps."""
    table = np.asarray(entry.make(**options))
    if table.ndim != 1 or not table.size or not np.isfinite(table).all():
        raise Failed(f"a law must return a list of probabilities, got shape {table.shape}")
    if table.min() < 0 or abs(table.sum() - 1) > 1e-9:
        raise Failed(
            f"probabilities must not be negative and sum to one, got {table.min():.3g} at least and {table.sum():.10g} together"
        )
    most = options.get("max")
    if most is not None and len(table) > most + 1:
        raise Failed(f"the law reaches {len(table) - 1} steps, max={most}")
    delays.table(entry.name, options)


def quantiles_have_mean_one(entry: Plugin, options: Options) -> None:
    """A law of compute times gives seconds of mean 1, which grow with u."""
    u = (np.arange(GRID) + 0.5) / GRID
    found = np.asarray(entry.make(u, **options))
    if found.shape != u.shape:
        raise Failed(f"it must return a time for each u, got shape {found.shape} for {u.shape}")
    if not np.isfinite(found).all() or found.min() < 0:
        raise Failed("times must be finite and not negative")
    if (np.diff(found) < 0).any():
        raise Failed("a quantile function never falls as u grows")
    if abs(found.mean() - 1) > TAIL:
        raise Failed(f"its mean must be 1 second, got {found.mean():.4g}; divide by it")
    square = np.asarray(entry.make(u[:6].reshape(2, 3), **options))
    if square.shape != (2, 3):
        raise Failed("it must take u of any shape")


# -- compressors -------------------------------------------------------------------------------------------------------


def _tree(dtype: Any) -> Any:
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.standard_normal((6, 5)), dtype), "b": jnp.asarray(rng.standard_normal(7), dtype)}


def _messages(entry: Plugin, options: Options, tree: Any, count: int) -> np.ndarray:
    """[count, d]: messages of one tree under so many keys."""
    made = entry.make(**options)
    state = made.init(tree)

    def sent(number: jax.Array) -> jax.Array:
        return ravel_pytree(made.apply(tree, state, draws.key(0, 0, number, draws.MESSAGES))[0])[0]

    return np.asarray(jax.jit(jax.vmap(sent))(jnp.arange(count, dtype=jnp.int32)))


def message_has_the_form_of_what_is_sent(entry: Plugin, options: Options) -> None:
    """In either precision, under jit and vmap, a message has the shapes and dtypes of the tree, and a size in bits."""
    for wide in (False, True):
        with flags.fixed(wide):
            tree = _tree(np.float64 if wide else np.float32)
            made = entry.make(**options)
            message = jax.eval_shape(
                lambda t, m=made: m.apply(t, m.init(t), draws.key(0, 0, 0, draws.MESSAGES))[0], tree
            )
            ours, theirs = (jax.tree.map(lambda x: (x.shape, str(x.dtype)), t) for t in (message, tree))
            if ours != theirs:
                raise Failed(f"a message must have the shapes and dtypes of what is sent, {theirs}, got {ours}")
            bits = made.bits(tree)
            if not isinstance(bits, int | np.integer) or bits < 0:
                raise Failed(f"bits must give a whole number, got {bits!r}")
            if not np.isfinite(_messages(entry, options, jax.tree.map(jnp.zeros_like, tree), 2)).all():
                raise Failed("the message of a tree of zeros is not finite")


def message_is_what_its_kind_says(entry: Plugin, options: Options) -> None:
    """A contraction shortens the error, an unbiased operator has the right mean, an exact one changes nothing."""
    with flags.fixed(True):
        tree = _tree(np.float64)
        x = np.asarray(ravel_pytree(tree)[0])
        kind = entry.traits.get("kind", "contraction")
        found = _messages(entry, options, tree, DRAWS if kind == "unbiased" else 64)
    if kind == "exact" and not np.array_equal(found[0], x):
        raise Failed("it declares that it is exact, but it changes what is sent")
    if kind == "contraction":
        left = np.mean(np.sum((found - x) ** 2, 1)) / np.sum(x**2)
        if not left < 1:
            raise Failed(
                f"a contraction has E‖C(x) - x‖² < ‖x‖², got {left:.3g} ‖x‖²; say kind='unbiased' if it is that"
            )
    if kind == "unbiased":
        spread = found.std(0) / np.sqrt(len(found))
        off = np.max(np.abs(found.mean(0) - x) / (spread + 1e-12 * np.abs(x).max()))
        if off > 6:
            raise Failed(
                f"it declares that it is unbiased, but the mean of {len(found)} messages is {off:.1f} standard errors off"
            )


# -- problems and data -------------------------------------------------------------------------------------------------

WORKERS = 4


def _problem(entry: Plugin, options: Options) -> Problem:
    default = entry.traits.get("data")
    if not default:
        made = entry.make(None, WORKERS, **options)
    else:
        dataset = data.load(default)
        train, counts = data.shard(dataset.train, data.iid(dataset.train["y"], WORKERS))
        made = entry.make(Shards(train, counts, dataset.test, dataset.classes), WORKERS, **options)
    if not isinstance(made, Problem):
        raise Failed(f"it must give a dopt.Problem, got {type(made).__name__}")
    return made


def problem_is_sound(entry: Plugin, options: Options) -> None:
    """Shapes fit, the loss is a number, metrics are numbers, and it is the same problem each time."""
    for wide in (False, True):
        with flags.fixed(wide):
            made = _problem(entry, options)
            sound.check_shards(made, WORKERS)
            sound.check(made, np.dtype(np.float64 if wide else np.float32), 2)

    def digest(problem: Problem) -> str:
        try:
            return code.digest((problem.data, problem.counts, problem.test, problem.start))
        except code.UnknownError as error:
            raise Failed(f"its data cannot be identified by content: {error}") from None

    _twice(lambda: _problem(entry, options), digest, "the problem's data")


def gradient_is_that_of_the_loss(entry: Plugin, options: Options) -> None:
    """The gradient is finite and what finite differences say, at a random model, in float64."""
    with flags.fixed(True):
        made = _problem(entry, options)
        batch = jax.tree.map(
            lambda a: jnp.asarray(a[0, :2], np.float64 if a.dtype.kind == "f" else np.int32), made.data
        )
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), made.init(draws.start(0)))
        at, unravel = ravel_pytree(params)
        rng = np.random.default_rng(0)
        at = at + 0.1 * rng.standard_normal(at.shape)
        extra = (None,) if sound.takes_key(made.loss) else ()

        @jax.jit
        def f(x: jax.Array) -> jax.Array:
            return made.loss(unravel(x), batch, *extra)

        slope = jax.jit(jax.grad(f))(at)
        if not np.isfinite(slope).all():
            raise Failed("its gradient is not finite at a model near the start")
        for _ in range(3):
            way = rng.standard_normal(at.shape)
            way /= np.linalg.norm(way)
            there = float(f(at + STEP * way) - f(at - STEP * way)) / (2 * STEP)
            here = float(slope @ way)
            if abs(there - here) > 1e-4 * max(1.0, abs(here), float(np.abs(f(at)))):
                raise Failed(
                    f"along a random direction the gradient says {here:.6g}, and finite differences say {there:.6g}"
                )


def loss_is_a_mean_over_the_batch(entry: Plugin, options: Options) -> None:
    """The loss of a batch is the mean of its samples' losses, and the weighted loss with equal weights, too."""
    with flags.fixed(True):
        made = _problem(entry, options)
        batch = jax.tree.map(
            lambda a: jnp.asarray(a[0, :3], np.float64 if a.dtype.kind == "f" else np.int32), made.data
        )
        size = len(jax.tree.leaves(batch)[0])
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), made.init(draws.start(0)))
        extra = (None,) if sound.takes_key(made.loss) else ()
        whole = float(made.loss(params, batch, *extra))
        each = [float(made.loss(params, jax.tree.map(lambda a, i=i: a[i : i + 1], batch), *extra)) for i in range(size)]
        if not np.isclose(whole, np.mean(each), rtol=1e-6):
            raise Failed(
                f"the loss of {size} samples is {whole:.6g}, and the mean of theirs {np.mean(each):.6g}; take a mean over the batch"
            )
        if made.weighted_loss is not None:
            found = float(made.weighted_loss(params, batch, jnp.full(size, 1 / size)))
            if not np.isclose(found, whole, rtol=1e-6):
                raise Failed(f"weighted_loss with equal weights is {found:.6g}, and loss {whole:.6g}")


KINDS_OF_DATA = {"classes": ("f", "i"), "text": ("i", "i"), "ratings": ("i", "f")}  # dtypes of x and y


def set_is_whole(entry: Plugin, options: Options) -> None:
    """X and y have as many samples, of the dtypes of their kind, classes within their number; and the same each time."""
    made = _twice(lambda: entry.make(**options), lambda found: code.digest(tuple(found)), "the set")
    for part, leaves in (("train", made.train), ("test", made.test or made.train)):
        x, y = np.asarray(leaves["x"]), np.asarray(leaves["y"])
        if len(x) != len(y) or not len(x):
            raise Failed(f"{part}: x has {len(x)} samples and y {len(y)}")
        for name, leaf, kind in zip("xy", (x, y), KINDS_OF_DATA[SETS[entry.name].traits["kind"]], strict=True):
            if leaf.dtype.kind != kind or (kind == "f" and not np.isfinite(leaf).all()):
                raise Failed(
                    f"{part}: {name} must be finite numbers of kind {kind!r} (f: real, i: whole), got {leaf.dtype}"
                )
        if made.classes and not (y.min() >= 0 and y.max() < made.classes):
            raise Failed(f"{part}: y must lie in 0..{made.classes - 1}, got {y.min()}..{y.max()}")


def samples_belong_to_one_worker(entry: Plugin, options: Options) -> None:
    """Every sample belongs to one worker, no worker is empty, and the same split comes again."""
    labels = np.random.default_rng(0).integers(0, 3, 60)
    for workers in (1, WORKERS, 7):
        parts = _twice(
            functools.partial(entry.make, labels, workers, **options),
            lambda found: code.digest([np.asarray(part) for part in found]),
            f"the split over {workers} workers",
        )
        if len(parts) != workers or not all(len(part) for part in parts):
            raise Failed(
                f"it must give a part for each of {workers} workers, none empty, got {[len(p) for p in parts]}"
            )
        if sorted(np.concatenate(parts).tolist()) != list(range(len(labels))):
            raise Failed(f"over {workers} workers some of {len(labels)} samples belong to no worker, or to two")


# -- metrics -----------------------------------------------------------------------------------------------------------


def metric_is_a_number(entry: Plugin, options: Options) -> None:
    """It gives a finite number, also when JAX traces it."""
    problem = least_squares(WORKERS)
    with flags.fixed(True):
        models = jax.tree.map(jnp.asarray, problem.start)
        if entry.traits["of"] == "mean":
            models = jax.tree.map(lambda x: x.mean(0), models)
        found = jax.jit(lambda them: entry.make(them, problem, **options))(models)
    if getattr(found, "shape", None) != () or not np.isfinite(found):
        raise Failed(f"it must give a finite number, got {found!r}"[:200])
