"""What gossip methods promise: exact optima, closed-form biases, averages that survive delay and loss, damage that stays."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import dopt
from dopt import AXIS, InputError, Problem, Run, algorithms, engine, mixing, theory, topology
from dopt.algorithms import ALGORITHMS
from dopt.engine import group_of

N, DIM, RATE = 16, 4, 0.1
EXACT = {
    "gradient_tracking": {},
    "gradient_tracking, adapt then combine": {"algorithm.adapt_then_combine": True},
    "extra": {},
    "exact_diffusion": {},
    "d2": {"weights": "lazy"},
    "nids": {},
    "push_diging": {},
    "push_pull": {},
}


@cache
def quadratics(n: int = N, largest: float = 1.0, seed: int = 0) -> Problem:
    """fᵢ = ½(x - bᵢ)ᵀAᵢ(x - bᵢ), each Aᵢ of its own, its eigenvalues from `largest`/10 to `largest`."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n, DIM, DIM)))[0]
    A = np.einsum("nij,j,nkj->nik", basis, np.geomspace(largest / 10, largest, DIM), basis)
    b = rng.standard_normal((n, DIM))

    def loss(x: Any, batch: Any) -> jax.Array:
        away = x - batch["b"]
        return 0.5 * jnp.einsum("si,sij,sj->s", away, batch["A"], away).mean()

    return Problem(lambda key: jnp.zeros(DIM), loss, {"A": A[:, None], "b": b[:, None]})


def optimum(problem: Problem) -> np.ndarray:
    A, b = problem.data["A"][:, 0], problem.data["b"][:, 0]
    return np.linalg.solve(A.sum(0), np.einsum("nij,nj->i", A, b))


def run(problem: Problem | None = None, graph: Any = None, **fields: Any) -> Any:
    defaults = {"workers": N, "learning_rate": RATE, "precision": "float64", "steps": 1000, "topology": "ring"}
    if graph is not None:
        del defaults["topology"]
    return dopt.run(Run.from_dict({**defaults, **fields}), problem=problem, graph=graph)


def refused(**fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(**fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- exact methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "distance"), [("float64", 1e-11), ("float32", 1e-5)])
@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_reach_the_optimum_and_stay_there_for_30000_steps(
    name: str, precision: str, distance: float
) -> None:
    problem = quadratics()
    found = run(
        problem,
        algorithm=name.split(",")[0],
        precision=precision,
        steps=30_000,
        record_every=1000,
        metrics=("grad_norm", "consensus_distance"),
        **EXACT[name],
    )
    assert np.abs(found.params - optimum(problem)).max() <= distance
    late = found.history["step"] >= 10_000
    assert np.sqrt(found.history["consensus_distance"][late]).max() <= distance
    assert found.history["grad_norm"][late].max() <= distance  # f has curvature <= 1


def test_push_pull_takes_two_matrices() -> None:
    problem, directed = quadratics(), topology.make("random_digraph", N)
    R, C = mixing.weights(directed, "pull"), mixing.weights(directed, "push")
    assert np.abs(R - C).max() > 0.1
    found = run(problem, graph=(R, C), algorithm="push_pull", steps=4000, learning_rate=0.05)
    assert np.abs(found.params - optimum(problem)).max() <= 1e-11
    with pytest.raises(InputError, match=r"^graph: push_pull takes two matrices \(R, C\), got one"):
        run(problem, graph=R, algorithm="push_pull")


@pytest.mark.parametrize("adapt_then_combine", [False, True])
def test_gossip_sgd_stops_at_its_fixed_point(adapt_then_combine: bool) -> None:
    problem = quadratics()
    A, b = problem.data["A"][:, 0], problem.data["b"][:, 0]
    W = mixing.weights(topology.make("ring", N))
    expected = theory.gossip_fixed_point(W, A, b, RATE, adapt_then_combine=adapt_then_combine)
    options = {"algorithm.adapt_then_combine": adapt_then_combine}
    found = run(problem, algorithm="gossip_sgd", steps=5000, **options)
    np.testing.assert_allclose(found.params, expected, rtol=0, atol=1e-10)
    assert np.abs(expected - optimum(problem)).max() > 0.05


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("name", ["gradient_tracking", "gradient_tracking, adapt then combine", "push_diging"])
@pytest.mark.parametrize("sequence", ["one_peer_exponential", "base_k"])
def test_tracking_is_exact_on_graphs_that_take_turns(sequence: str, name: str, n: int) -> None:
    problem = quadratics(n)
    fields = {"algorithm": name.split(",")[0], "topology": sequence, "workers": n, **EXACT[name]}
    found = run(problem, steps=5000, learning_rate=0.05, **fields)
    assert np.abs(found.params - optimum(problem)).max() <= 1e-11


def test_d2_converges_at_edge_weight_033_and_diverges_at_034() -> None:
    problem = quadratics(largest=0.5)  # αμ <= 0.05 for every curvature
    fields = {"algorithm": "d2", "weights": "constant"}
    found = run(problem, **fields, steps=30_000, **{"weights.edge": 0.33})
    assert np.abs(found.params - optimum(problem)).max() <= 1e-10
    found = run(problem, **fields, steps=30_000, strict=False, **{"weights.edge": 0.34})
    assert found.diverged or np.abs(found.params).max() > 1e6


def test_d2_is_refused_where_the_smallest_eigenvalue_reaches_minus_a_third() -> None:
    for options in ({"weights": "constant", "weights.edge": 0.34}, {}):  # the default ring sits on it
        line = refused(problem=quadratics(), algorithm="d2", **options)
        assert "d2" in line
        assert "-1/3" in line
        assert "lazy" in line


def test_methods_whose_theory_needs_a_linear_update_refuse_others() -> None:
    for name, entry in ALGORITHMS.items():
        if entry.traits.needs_linear_update or entry.traits.divides_by_rate:
            line = refused(problem=quadratics(), algorithm=name, optimizer="adam")
            assert line.startswith(f"optimizer: {name} takes sgd only"), line
    run(problem=quadratics(), algorithm="gradient_tracking", optimizer="adam", strict=False, steps=3)
    run(problem=quadratics(), algorithm="push_sum_sgd", optimizer="adam", steps=3)
    line = refused(problem=quadratics(), algorithm="qg_dsgdm", **{"optimizer.momentum": 0.9})
    assert line.startswith("optimizer.momentum: qg_dsgdm has a momentum of its own")
    assert refused(problem=quadratics(), algorithm="qg_dsgdm", learning_rate=0.0).startswith("learning_rate: qg_dsgdm")


# -- averages -------------------------------------------------------------------------------------------------------


def consensus(**fields: Any) -> np.ndarray:
    """[n] where b = 0..n-1 ends without gradients."""
    n = fields.get("workers", N)
    problem = Problem(
        lambda key: jnp.zeros(1),
        lambda x, batch: 0.0 * x.sum(),
        {"none": np.zeros((n, 1))},
        start=np.arange(float(n))[:, None],
    )
    return run(problem, steps=fields.pop("steps", 3000), **fields).params[:, 0]


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("name", ["ring", "torus", "exponential", "complete", "star", "path", "barbell"])
def test_delayed_gossip_ends_at_the_average_that_its_own_weights_give(name: str, delay: int) -> None:
    W = mixing.weights(topology.make(name, N))
    weight = 1 + (1 - np.diag(W)) * delay
    limit = weight @ np.arange(N) / weight.sum()
    steps = 40_000 if name in ("path", "barbell") else 4000
    found = consensus(algorithm="delayed_gossip_sgd", topology=name, delay=delay, steps=steps)
    np.testing.assert_allclose(found, limit, rtol=0, atol=1e-9)
    if np.ptp(np.diag(W)) < 1e-12:  # a regular graph
        assert limit == pytest.approx(np.mean(np.arange(N)), abs=1e-12)
    elif name == "star":
        assert abs(limit - np.mean(np.arange(N))) > 0.1


@pytest.mark.parametrize("name", ["star", "barbell", "path"])
def test_delay_self_keeps_the_average(name: str) -> None:
    options = {"algorithm.delay_self": True}
    steps = 40_000
    found = consensus(algorithm="delayed_gossip_sgd", topology=name, delay=1, steps=steps, weights="lazy", **options)
    np.testing.assert_allclose(found, np.mean(np.arange(N)), rtol=0, atol=1e-9)


def test_push_sum_is_exact_on_a_directed_graph_where_gossip_is_biased() -> None:
    found = consensus(algorithm="push_sum_sgd", topology="random_digraph")
    np.testing.assert_allclose(found, np.mean(np.arange(N)), rtol=0, atol=1e-10)
    biased = consensus(algorithm="gossip_sgd", topology="random_digraph", strict=False)
    assert np.ptp(biased) < 1e-10
    assert abs(biased[0] - np.mean(np.arange(N))) > 0.1


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("sequence", ["one_peer_exponential", "base_k", "one_peer_ring"])
def test_push_sum_averages_on_graphs_that_take_turns(sequence: str, n: int) -> None:
    found = consensus(algorithm="push_sum_sgd", topology=sequence, workers=n)
    np.testing.assert_allclose(found, np.mean(np.arange(n)), rtol=0, atol=1e-10)


def test_chebyshev_rounds_agree_faster_than_plain_ones() -> None:
    spread = {
        chebyshev: np.ptp(
            consensus(algorithm="gossip_sgd", steps=5, **{"algorithm.rounds": 6, "algorithm.chebyshev": chebyshev})
        )
        for chebyshev in (False, True)
    }
    rho = mixing.second_modulus(mixing.weights(topology.make("ring", N)))
    assert spread[True] < spread[False] / 10
    contraction = 1 / np.cosh(6 * np.arccosh(1 / rho))  # 1 / T_6(1/ρ)
    assert spread[True] <= 2 * np.arange(N).std() * np.sqrt(N) * contraction**5


def test_relay_averages_a_tree_after_its_longest_way_and_not_before() -> None:
    tree = topology.make("binary_tree", N)
    hops = int(mixing.relay_ages(mixing.weights(tree)).max()) + 1
    assert np.ptp(consensus(algorithm="relay_sgd", topology="binary_tree", steps=1)) == pytest.approx(0, abs=1e-12)
    problem = quadratics()
    found = run(problem, algorithm="relay_sgd", topology="binary_tree", steps=hops + 1)
    alone = run(problem, algorithm="relay_sgd", topology="binary_tree", steps=1)
    assert np.ptp(alone.params, axis=0).max() > 1e-3
    assert np.isfinite(found.params).all()


@pytest.mark.parametrize("name", ["ring", "exponential"])
def test_the_best_rate_on_isotropic_quadratics_is_the_fixed_point_of_vogels_theory(name: str) -> None:
    workers, dim, seeds, noise = 32, 100, 48, 102  # E‖d‖² ddᵀ = (dim + 2) I for standard normal d
    W = mixing.weights(topology.make(name, workers))
    best, rate = theory.best_random_quadratic_rate(np.linalg.eigvals(W), noise)
    steps = int(12 / rate)

    def one(x: Any, learning_rate: Any, seed: Any) -> Any:
        mix = mixing.mix(mixing.form(W))
        method = algorithms.make("gossip_sgd", optax.sgd(learning_rate), mix, adapt_then_combine=True)
        key = jax.random.fold_in(jax.random.key(seed), lax.axis_index(AXIS))

        def step(carry: Any, k: Any) -> Any:
            x, state = carry
            d = jax.random.normal(jax.random.fold_in(key, k), (dim,), jnp.float32)
            updates, state = method.update(d * (d @ x), state, x)  # ∇ ½⟨d, x⟩²
            return (x + updates, state), (x @ x)

        return lax.scan(step, (x, method.init(x)), jnp.arange(steps))[1]

    several = jax.vmap(jax.vmap(one, (0, None, None), axis_name=AXIS), (None, None, 0))
    start = np.random.default_rng(0).standard_normal((workers, dim)).astype(np.float32)
    # to draw takes most of the time, so to compile well pays
    well = {"xla_backend_optimization_level": 3}
    squares = jax.jit(lambda a: several(start, a, jnp.arange(seeds)).mean((0, 1)), compiler_options=well)
    begin = steps // 3  # when the workers' differences have settled
    found = []
    for factor in (0.75, 0.9, 1.0, 1.1, 1.3):
        x = np.asarray(squares(jnp.float32(factor * best)))
        found.append(1 - (x[-1] / x[begin]) ** (1 / (steps - 1 - begin)))
    assert max(found) == pytest.approx(rate, rel=0.02)


# -- links that fail --------------------------------------------------------------------------------------------------


def test_tracking_over_failing_links_is_exact_where_its_matrices_allow_it() -> None:
    problem, lossy = quadratics(), {"steps": 4000, "learning_rate": 0.05, "link_loss": 0.2}

    def distance(**fields: Any) -> float:
        return float(np.abs(run(problem, **lossy, **fields).params - optimum(problem)).max())

    assert distance(algorithm="push_diging") <= 1e-10
    assert distance(algorithm="gradient_tracking", **{"link_loss.symmetric": True}) <= 1e-10
    assert distance(algorithm="gradient_tracking") > 1e-3  # directed failures: columns no longer sum to one
    assert distance(algorithm="gossip_sgd") > 0.05


def test_push_sum_weights_sum_to_n_and_its_average_is_right_whatever_fails() -> None:
    P = mixing.weights(topology.make("random_digraph", N), "push")
    loss = mixing.LinkLoss(0.4)

    def one(x: Any) -> Any:
        mix = mixing.mix(mixing.form(P, columns=True), loss=loss, seed=1)
        method = algorithms.make("push_sum_sgd", optax.sgd(0.0), mix)

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = method.update(jnp.zeros_like(params), state, params)
            return (params + updates, state), state.weight

        (params, _), weight = lax.scan(step, (x, method.init(x)), length=2000)
        return params, weight

    with jax.enable_x64(True):
        params, weight = jax.jit(jax.vmap(one, axis_name=AXIS))(jnp.arange(float(N)))
    np.testing.assert_allclose(np.asarray(weight).sum(0), N, rtol=0, atol=1e-11)
    assert np.ptp(np.asarray(weight)) > 0.5
    np.testing.assert_allclose(params, np.mean(np.arange(N)), rtol=0, atol=1e-9)


def test_choco_averages_with_few_coordinates_and_without_memory_does_not() -> None:
    fields = {"algorithm": "choco_sgd", "problem": "consensus", "problem.dim": 40, "workers": N, "learning_rate": RATE}
    fields |= {"algorithm.fraction": 0.05, "algorithm.consensus_rate": 0.1, "steps": 3000}
    runs = [Run.from_dict({**fields, "algorithm.memory": memory}) for memory in (True, False)]
    apart = [dopt.run(one).history["consensus_distance"] for one in runs]
    assert apart[0][-1] < 1e-6 * apart[0][0]
    assert apart[1][-1] > 1e-2 * apart[1][0]


def test_choco_comes_nearly_as_close_as_exact_communication_with_a_quarter_of_the_coordinates() -> None:
    problem = quadratics()
    fields = {"algorithm": "choco_sgd", "algorithm.fraction": 0.25, "algorithm.consensus_rate": 0.6, "steps": 4000}
    found = run(problem, learning_rate=0.01, **fields)
    exact = run(problem, algorithm="gossip_sgd", learning_rate=0.01, steps=4000)
    away = [np.abs(one.params.mean(0) - optimum(problem)).max() for one in (found, exact)]
    assert away[0] < 2 * away[1]
    assert found.history["bytes_sent"][-1] == 4000 * 2 * (64 + 2) / 8  # one of four coordinates to two neighbours
    assert exact.history["bytes_sent"][-1] == 4000 * 2 * DIM * 8


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "per_step"),
    [
        ({"algorithm": "gossip_sgd"}, 2 * DIM * 8),
        ({"algorithm": "gossip_sgd", "algorithm.rounds": 3}, 3 * 2 * DIM * 8),
        ({"algorithm": "gossip_sgd", "algorithm.local_steps": 4}, 2 * DIM * 8 / 4),
        ({"algorithm": "gossip_sgd", "topology": "one_peer_exponential"}, DIM * 8),
        ({"algorithm": "gossip_sgd", "topology": "random_matching"}, DIM * 8),
        ({"algorithm": "gossip_sgd", "link_loss": 0.5}, 2 * DIM * 8),  # what is lost was sent
        ({"algorithm": "gradient_tracking"}, 2 * 2 * DIM * 8),
        ({"algorithm": "gradient_tracking", "algorithm.adapt_then_combine": True}, 2 * 2 * DIM * 8),
        ({"algorithm": "extra"}, 2 * DIM * 8),
        ({"algorithm": "push_sum_sgd"}, 2 * (DIM + 1) * 8),
        ({"algorithm": "push_diging"}, 2 * (2 * DIM + 1) * 8),
        ({"algorithm": "push_pull"}, 2 * 2 * DIM * 8),
        ({"algorithm": "choco_sgd", "algorithm.compressor": "sign"}, 2 * (DIM + 64) / 8),
        ({"algorithm": "relay_sgd", "topology": "path"}, 2 * (N - 1) / N * DIM * 8),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_bytes_sent_are_those_of_what_travels(fields: dict[str, Any], per_step: float) -> None:
    found = run(quadratics(), steps=40, record_every=8, **fields)
    np.testing.assert_allclose(found.history["bytes_sent"], found.history["step"] * per_step)


def test_matcha_sends_over_the_links_that_are_active() -> None:
    found = run(quadratics(), algorithm="gossip_sgd", topology="matcha", steps=400, **{"topology.budget": 0.5})
    _, active = topology.make("matcha", N, budget=0.5).draw(0, 400)
    pairs = (topology.make("matcha", N).partners != np.arange(N)).sum(1)
    assert found.history["bytes_sent"][-1] == (active @ pairs).sum() * DIM * 8 / N


# -- damage -----------------------------------------------------------------------------------------------------------


APART = [name for name, entry in ALGORITHMS.items() if entry.traits.family == "gossip" and name != "relay_sgd"]


@cache
def _in_two_halves(name: str, poison: float = 0.0) -> dopt.Result:
    """Models that never meet those of the other half; worker 1 may start from poison."""
    start = np.random.default_rng(0).standard_normal((N, DIM))
    start[1] = poison or start[1]
    fields = {"algorithm": name, "topology": "disconnected", "strict": False, "precision": "float32", "steps": 50}
    return dopt.run(Run.from_dict({"workers": N, "learning_rate": 0.05, **fields}), problem=quadratics(), start=start)


@pytest.mark.parametrize("poison", [np.nan, 1e30])
@pytest.mark.parametrize("name", APART)
def test_a_worker_that_goes_wrong_stays_alone_where_the_graph_falls_apart(name: str, poison: float) -> None:
    clean, found = _in_two_halves(name), _in_two_halves(name, poison)
    half = N // 2
    np.testing.assert_array_equal(found.params[half:], clean.params[half:])
    assert np.isfinite(clean.params).all()
    assert not np.allclose(found.params[:half], clean.params[:half], equal_nan=False)


@pytest.mark.parametrize("name", ["gossip_sgd", "extra", "push_sum_sgd", "relay_sgd"])
def test_a_graph_that_falls_apart_is_refused_unless_asked_for(name: str) -> None:
    line = refused(problem=quadratics(), algorithm=name, topology="disconnected")
    assert "connected" in line
    if name != "relay_sgd":
        run(quadratics(), algorithm=name, topology="disconnected", strict=False, steps=3)


@pytest.mark.parametrize("delay", [0, 3, "uniform"])
def test_a_delay_that_is_drawn_does_not_change_for_whom_workers_wait(delay: int | str) -> None:
    """Old models arrive late by definition; computing, sending and the neighbours' barrier take what they take."""
    machines = {"cluster": "exponential", "cluster.latency": 0.1, "steps": 40}
    asked = {"delay": delay} | ({"delay.max": 4} if delay == "uniform" else {})
    times = [
        run(quadratics(), algorithm=name, **machines, **options).history["time"]
        for name, options in (("gossip_sgd", {}), ("gossip_sgd", asked), ("delayed_gossip_sgd", asked))
    ]
    assert times[0][-1] > 40  # the slowest of several neighbours takes longer than one in the mean
    for other in times[1:]:
        np.testing.assert_array_equal(other, times[0])


# -- options that do not go together ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"algorithm": "gossip_sgd", "delay": 2, "algorithm.rounds": 2}, "delay: gossip_sgd with these options"),
        ({"algorithm": "gossip_sgd", "delay": 2, "algorithm.local_steps": 2}, "delay: gossip_sgd with these options"),
        (
            {"algorithm": "gradient_tracking", "delay": 1, "algorithm.adapt_then_combine": True},
            "delay: gradient_tracking with these options does not mix exactly once a step",
        ),
        ({"algorithm": "relay_sgd", "delay": 1}, "delay: relay_sgd"),
        ({"algorithm": "gossip_sgd", "delay": "cluster"}, "delay: gossip_sgd cannot run without barriers"),
        (
            {"algorithm": "delayed_gossip_sgd", "delay": "cluster", "topology": "one_peer_ring"},
            "delay: cluster needs one fixed graph",
        ),
        ({"algorithm": "extra", "topology": "one_peer_ring"}, "topology: extra needs"),
        (
            {"algorithm": "gossip_sgd", "algorithm.chebyshev": True, "topology": "exponential"},
            "mixing: W must be symmetric for gossip_sgd",
        ),
        ({"algorithm": "gossip_sgd", "algorithm.rounds": 0}, "algorithm.rounds: must be at least 1, got 0"),
        ({"algorithm": "choco_sgd", "algorithm.compressor": "top"}, "compressor: unknown name 'top'"),
        ({"algorithm": "choco_sgd", "algorithm.fraction": 1.5}, "algorithm.fraction: must lie in (0, 1], got 1.5"),
        ({"algorithm": "choco_sgd", "algorithm.compressor": "sign", "algorithm.fraction": 0.1}, "algorithm.fraction"),
        ({"algorithm": "choco_sgd", "algorithm.consensus_rate": 0.0}, "algorithm.consensus_rate: must lie in (0, 1]"),
        ({"algorithm": "gossip_sgd", "link_loss": 1.5}, "link_loss: must lie in [0, 1], got 1.5"),
        (
            {"algorithm": "gossip_sgd", "link_loss": 0.1, "link_loss.policy": "keep"},
            "link_loss.policy: unknown name 'keep'; did you mean 'keep_self'?",
        ),
        ({"algorithm": "gossip_sgd", "link_loss.policy": "keep_self"}, "link_loss.policy: a run whose links do not"),
        (
            {"algorithm": "push_sum_sgd", "link_loss": 0.1, "link_loss.policy": "last_seen"},
            "link_loss.policy: push_sum_sgd loses nothing only if the sender keeps",
        ),
        (
            {"algorithm": "allreduce_sgd", "link_loss": 0.1, "topology": None},
            "link_loss: allreduce_sgd does not read it",
        ),
        ({"algorithm": "gossip_sgd", "mix": "dens"}, "mix: unknown form 'dens'; did you mean 'dense'?"),
        ({"algorithm": "gossip_sgd", "mix": "permutations"}, "mix: permutations travel between devices; use"),
        ({"algorithm": "gossip_sgd", "topology": "matcha", "weights": "metropolis"}, "weights: "),
        ({"algorithm": "relay_sgd", "topology": "exponential"}, "topology: relay_sgd needs an undirected graph"),
        (
            {"algorithm": "gossip_sgd", "topology": "random_digraph"},
            "mixing: W must be doubly stochastic for gossip_sgd",
        ),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_what_does_not_go_together_is_refused_in_one_line(fields: dict[str, Any], line: str) -> None:
    assert refused(problem=quadratics(), **fields).startswith(line), refused(problem=quadratics(), **fields)


def test_delays_that_the_edges_of_a_graph_carry_are_those_that_run() -> None:
    graph = topology.make("ring", N)
    for place, (u, v) in enumerate(graph.edges):
        graph.edges[u, v]["delay"] = place % 4
    found = run(quadratics(), graph=graph, algorithm="delayed_gossip_sgd", delay="edges", steps=30)
    ages, W = topology.attribute(graph, "delay").astype(int), mixing.weights(graph)
    A, b = quadratics().data["A"][:, 0], quadratics().data["b"][:, 0]
    models = [np.zeros((N, DIM))]
    for k in range(30):
        X = models[k]
        old = np.array([[models[max(0, k - ages[i, j])][j] for j in range(N)] for i in range(N)])
        models.append(np.einsum("ij,ijd->id", W, old) - RATE * np.einsum("nij,nj->ni", A, X - b))
    np.testing.assert_allclose(found.params, models[-1], rtol=0, atol=1e-12)
    assert found.history["staleness_max"][-1] == 3


@pytest.mark.parametrize(("graph", "workers", "messages"), [("ring", 8, 2), ("ring", 16, 2), ("exponential", 8, 3)])
def test_on_a_mesh_permutations_send_to_neighbours_and_a_product_gathers_all(
    graph: str, workers: int, messages: int
) -> None:
    fields: dict[str, Any] = {"algorithm": "gossip_sgd", "topology": graph, "workers": workers, "learning_rate": 0.1}
    fields |= {"executor": "mesh", "problem": "consensus", "problem.dim": 100, "metrics": ("loss",), "steps": 100}

    def sent(mix: str) -> tuple[int, int]:
        group = group_of([Run.from_dict({**fields, "mix": mix}).resolve()])
        text = engine.compile(group, 1).go.as_text()
        return len(re.findall(r" collective-permute(?:-start)?\(", text)), text.count(" all-gather(")

    assert sent("permutations") == (messages, 0)
    assert sent("auto")[0] == 0
    assert sent("auto")[1] > 0
