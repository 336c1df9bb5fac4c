"""Graphs that change from step to step: periods of them, and random matchings.

The constructions that take more than a line: Base-(k+1) graphs, whose period averages exactly, and MATCHA's matchings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np

from dopt import extras, memory
from dopt.types import InputError

STREAM = 0x6D61746368  # of the random numbers of matchings: a stream of its own


@dataclass(frozen=True)
class Periodic:
    """Graphs on the same workers that take turns: step k uses graphs[k % period]."""

    graphs: tuple[nx.Graph, ...]

    def __len__(self) -> int:
        """Number of workers."""
        return len(self.graphs[0])


@dataclass(frozen=True, eq=False)
class Matchings:
    """A random sequence: at each step disjoint pairs meet and draw together, W_k = I - a Σⱼ Bⱼ Lⱼ, B random.

    Attributes:
      workers: n.
      partners: [matchings, workers] int32, whom each worker meets in each matching (itself: nobody); None: one matching
        a step, uniformly random among all (nearly) perfect ones.
      probability: [matchings] with which each is active at a step, independently.
      weight: a.
    """

    workers: int
    partners: np.ndarray | None
    probability: np.ndarray
    weight: float

    def __len__(self) -> int:
        """Number of workers."""
        return self.workers

    def draw(self, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """(partner [steps or 1, matchings, n] int32, active [steps, matchings] bool), a function of (seed, step) alone."""
        rng = np.random.Generator(np.random.Philox(key=[seed, STREAM]))
        if self.partners is not None:
            return self.partners[None].astype(np.int32), rng.random((steps, len(self.partners))) < self.probability
        numbers = rng.random((steps, self.workers + 1))  # the last one says whether they meet at all
        order = np.argsort(numbers[:, :-1], axis=1).astype(np.int32)
        paired = self.workers // 2 * 2  # of an odd number one stays alone
        first, second = order[:, 0:paired:2], order[:, 1:paired:2]
        partner = np.tile(np.arange(self.workers, dtype=np.int32), (steps, 1))
        np.put_along_axis(partner, first, second, 1)
        np.put_along_axis(partner, second, first, 1)
        return partner[:, None], numbers[:, -1:] < self.probability

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """(E[W], E[WᵀW]), [n, n] each: a matching's Laplacian L has L² = 2L."""
        n, a, eye = self.workers, self.weight, np.eye(self.workers)
        if self.partners is None:
            meet = 1 / (n - 1 + n % 2) if n > 1 else 0.0  # a pair's chance
            laplacian = self.probability[0] * meet * (n * eye - 1)
            return eye - a * laplacian, eye - 2 * a * (1 - a) * laplacian
        each = laplacians(self.partners)
        mean = np.tensordot(self.probability, each, 1)
        spread = np.tensordot(self.probability * (1 - self.probability), each, 1)
        return eye - a * mean, eye - 2 * a * mean + a**2 * (mean @ mean + 2 * spread)


def laplacians(partners: np.ndarray) -> np.ndarray:
    """[matchings, n, n] the Laplacian of each."""
    n = partners.shape[1]
    met = np.eye(n)[partners]  # [matchings, n, n], row i: its partner
    return np.eye(n) - met


# -- Base-(k+1) graphs --------------------------------------------------------------------------------------------------

Round = dict[tuple[int, int], float]  # undirected edge -> weight


def base_graphs(workers: int, degree: int) -> list[Round]:
    """Rounds whose product is the average, exactly, each worker meeting at most `degree` others in a round.

    Takezawa et al. 2023, 2305.11420, algorithm 3: simple Base-(k+1) graphs on parts of n side by side, then
    hyper-hypercubes across them; or one simple graph, where that is shorter.
    """
    degree = min(degree, max(1, workers - 1))
    across = _smooth_part(workers, degree + 1)
    part = workers // across
    nodes = np.arange(workers).reshape(across, part)
    inside = [_simple(list(row), degree) for row in nodes]
    outside = [_hypercube(list(column), degree) for column in nodes.T]
    split = [_union(rounds) for rounds in zip(*inside, strict=True)]
    split += [_union(rounds) for rounds in zip(*outside, strict=True)]
    whole = _simple(list(range(workers)), degree)
    return min(whole, split, key=len)


def _union(rounds: Sequence[Round]) -> Round:
    return {edge: weight for one in rounds for edge, weight in one.items()}


def _factors(n: int, largest: int) -> list[int] | None:
    """Factors <= largest whose product is n; None: there are none."""
    found = []
    for factor in range(largest, 1, -1):
        while n % factor == 0:
            n //= factor
            found.append(factor)
    return found if n == 1 else None


def _smooth_part(n: int, largest: int) -> int:
    """The largest divisor of n whose prime factors are all <= largest."""
    return max(d for d in range(1, n + 1) if n % d == 0 and _factors(d, largest) is not None)


def _hypercube(nodes: list[int], degree: int) -> list[Round]:
    """Algorithm 1, the k-peer hyper-hypercube: number nodes in mixed radix and average along one digit after the other."""
    factors, stride, rounds = _factors(len(nodes), degree + 1) or [], 1, []
    for factor in factors:
        one: Round = {}
        for first in range(len(nodes)):
            if first // stride % factor == 0:
                group = [nodes[first + stride * digit] for digit in range(factor)]
                one |= dict.fromkeys(combinations(group, 2), 1 / factor)
        rounds.append(one)
        stride *= factor
    return rounds


def _simple(nodes: list[int], degree: int) -> list[Round]:
    """Algorithm 2, the simple Base-(k+1) graph: n = Σ a_l (k+1)^{p_l} gives parts V_l of a_l pieces each.

    All parts average inside; then part by part, each later node meets a fresh node of every piece of V_l, so that the rest
    and each piece have the mean of all; then the pieces average inside.
    """
    if _factors(len(nodes), degree + 1) is not None:
        return _hypercube(nodes, degree)
    parts = _digits(nodes, degree + 1)
    inside = [_hypercube([node for piece in part for node in piece], degree) for part in parts]
    first = len(inside[0])  # the largest part takes longest
    rounds: list[Round] = [_union([one[k] for one in inside if k < len(one)]) for k in range(first)]
    sizes = [sum(map(len, part)) for part in parts]
    for place, part in enumerate(parts[:-1]):
        later = [node for rest in parts[place + 1 :] for piece in rest for node in piece]
        meeting = _meeting(part, later, sizes[place] / sum(sizes[place:]), degree)
        for k, one in enumerate(meeting, start=first + place):
            rounds += [{} for _ in range(k + 1 - len(rounds))]
            rounds[k] = rounds[k] | one
    return rounds


def _meeting(part: list[list[int]], later: list[int], share: float, degree: int) -> list[Round]:
    """Each later node meets a fresh node of every piece of a part, which has this share of all; then the pieces average inside."""
    meet = {(node, piece[i]): share / len(part) for i, node in enumerate(later) for piece in part}
    return [meet, *(_union(step) for step in zip(*(_hypercube(piece, degree) for piece in part), strict=True))]


def _digits(nodes: list[int], base: int) -> list[list[list[int]]]:
    """Nodes by the digits of their number n in a base: for each digit that is not 0 as many pieces, of a power of the base."""
    parts, left, power = [], nodes, 1
    while power * base <= len(nodes):
        power *= base
    while left:
        digit = len(left) // power
        if digit:
            parts.append([left[i * power : (i + 1) * power] for i in range(digit)])
            left = left[digit * power :]
        power //= base
    return parts


# -- MATCHA -----------------------------------------------------------------------------------------------------------


def matchings(graph: nx.Graph) -> np.ndarray:
    """[matchings, n] partners: the edges of a graph on 0..n-1 in at most (largest degree + 1) matchings.

    Misra-Gries 1992, a constructive proof of Vizing's theorem. A bipartite graph takes one less, and no fans: the path
    from one end of an edge never comes to the other.
    """
    bipartite = nx.is_bipartite(graph)
    colours = range(max((d for _, d in graph.degree), default=0) + (not bipartite))
    met = _Colours([{} for _ in graph])
    for u, v in graph.edges:
        fan = [v] if bipartite else met.fan(u, v)
        c, d = met.free(u, colours), met.free(fan[-1], colours)
        met.swap(u, c, d)
        # up to here the fan still is one; its last worker must be free of d
        end = next(place for place, w in enumerate(fan) if d not in met.at[w])
        for here, after in pairwise(fan[: end + 1]):
            met.put(u, here, met.take(u, after))
        met.put(u, fan[end], d)
    used = sorted({c for one in met.at for c in one})
    return np.array([[met.at[u].get(c, u) for u in range(len(graph))] for c in used], np.int32).reshape(-1, len(graph))


class _Colours(NamedTuple):
    """Edges, each of a colour, none of which any worker meets twice: a colour is a matching."""

    at: list[dict[int, int]]  # at[u][colour]: whom u meets in it

    def free(self, u: int, colours: range) -> int:
        """The first colour in which u meets nobody."""
        return next(c for c in colours if c not in self.at[u])

    def put(self, u: int, v: int, c: int) -> None:
        self.at[u][c], self.at[v][c] = v, u

    def take(self, u: int, v: int) -> int:
        """Take the colour off an edge: which it was."""
        c = next(c for c, w in self.at[u].items() if w == v)
        del self.at[u][c], self.at[v][c]
        return c

    def fan(self, u: int, v: int) -> list[int]:
        """v, and then neighbours of u, each met in a colour that the one before is free of."""
        found = [v]
        while more := [w for c, w in self.at[u].items() if w not in found and c not in self.at[found[-1]]]:
            found.append(more[0])
        return found

    def swap(self, u: int, c: int, d: int) -> None:
        """Swap c and d on the path from u whose edges are coloured d, c, d, ...: then u is free of d."""
        path, x, now = [], u, d
        while now in self.at[x]:
            path.append((x, self.at[x][now]))
            x, now = self.at[x][now], c if now == d else d
        old = [self.take(*edge) for edge in path]
        for edge, was in zip(path, old, strict=True):
            self.put(*edge, c if was == d else d)


@lru_cache(maxsize=64)
def matcha_of(edges: tuple[tuple[int, int], ...], workers: int, budget: float) -> Matchings:
    """MATCHA: matchings of a graph, their probabilities and the weight a. Wang et al. 2019, 1905.09435.

    The probabilities maximise λ₂(Σ pⱼ Lⱼ) with Σ pⱼ <= budget x matchings (eq. 4); a minimises ‖E[WᵀW] - J‖₂ (eq. 5).

    Raises:
      InputError: the solver is not installed, or fails.
    """
    from scipy.optimize import minimize_scalar

    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(range(workers))
    graph.add_edges_from(edges)
    partners = matchings(graph)
    probability = np.ones(len(partners)) if budget == 1 else _probabilities(laplacians(partners), budget)

    def contraction(a: float) -> float:
        square = Matchings(workers, partners, probability, float(a)).moments()[1]
        return float(np.abs(np.linalg.eigvalsh(square - 1 / workers)).max())

    a = minimize_scalar(contraction, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    return Matchings(workers, partners, probability, float(a))


def _probabilities(each: np.ndarray, budget: float) -> np.ndarray:
    memory.refuse_beyond([memory.solver("topology.budget", each.shape[1], 1)])
    extras.need("cvxpy", "topology: matcha with topology.budget < 1")
    import cvxpy

    n = each.shape[1]
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]  # what is orthogonal to 1
    reduced = basis.T @ each @ basis
    reduced /= np.linalg.eigvalsh(reduced.mean(0))[0]  # so that what is sought is about one, as the solver likes it
    p = cvxpy.Variable(len(each))  # in units of the budget
    connectivity = cvxpy.lambda_min(sum(p[j] * reduced[j] for j in range(len(each))))
    limits = [p >= 0, p <= 1 / budget, cvxpy.sum(p) <= len(each)]
    problem = cvxpy.Problem(cvxpy.Maximize(connectivity), limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is called inaccurate here is so in the fifth digit
            problem.solve(solver=cvxpy.CLARABEL)
    except cvxpy.error.SolverError as error:
        raise InputError(f"topology: matcha's probabilities were not found ({error}); try another budget") from error
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise InputError(f"topology: matcha's probabilities were not found ({problem.status}); try another budget")
    found = np.clip(budget * np.asarray(p.value), 0, 1)
    return np.minimum(found * min(1.0, budget * len(each) / max(found.sum(), 1e-12)), 1)
