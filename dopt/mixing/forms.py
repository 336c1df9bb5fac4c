"""The forms in which W runs: one product, lists of neighbours, or permutations between devices.

A form's leaves have a leading axis [period]: a static W has period 1, and a random sequence is drawn ahead, a graph a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.sparse import csgraph, csr_array, issparse

from dopt.mixing import sparse
from dopt.mixing.rules import as_matrix
from dopt.mixing.spectrum import Matrix, is_connected, is_stochastic
from dopt.permute import Pairs
from dopt.registry import did_you_mean
from dopt.topology import Matchings
from dopt.types import Array, InputError, Whole

FORMS = {
    "auto": "as the graph, its size and the executor suggest",
    "dense": "one product W @ X",
    "neighbours": "lists of neighbours, for large sparse graphs and for disconnected ones",
    "permutations": "between devices, one permute for each of a few permutations; under mesh for each of a few shifts",
}
DENSE_UP_TO = 64  # workers: below, one product is faster than a gather, and graphs share a compilation


def _at(leaf: Array, step: Whole) -> jax.Array:
    each = jnp.asarray(leaf)  # here, since whether this is x64 is known only where it runs
    return each[0] if each.shape[0] == 1 else lax.dynamic_index_in_dim(each, step % each.shape[0], 0, keepdims=False)


@partial(jax.tree_util.register_dataclass, data_fields=["weight"], meta_fields=["columns"])
@dataclass(frozen=True)
class Dense:
    """W as one matrix product."""

    weight: Array  # [period, n, n], diagonal 0
    columns: bool = False  # it is the columns that sum to one

    pairs = None

    @property
    def period(self) -> int:
        return self.weight.shape[0]

    @property
    def described(self) -> str:
        """What of the form is static."""
        return f"dense{' columns' * self.columns}{f' period {self.period}' * (self.period > 1)}"

    def at(self, step: Whole) -> Dense:
        """The W of a step, without the leading axis."""
        return replace(self, weight=_at(self.weight, step))

    def outflow(self, arrived: jax.Array | None) -> Array:
        """[n] weight that leaves each worker; of a form without the leading axis."""
        return (self.weight if arrived is None else jnp.where(arrived, self.weight, 0)).sum(0)


@partial(jax.tree_util.register_dataclass, data_fields=["index", "weight"], meta_fields=["columns", "pairs"])
@dataclass(frozen=True)
class Neighbours:
    """W as lists of senders; with `pairs`, column s of the lists is the permutation pairs[phase][s]."""

    index: Array  # [period, n, k] int32, padded with oneself
    weight: Array  # [period, n, k], padded with 0
    columns: bool = False
    pairs: tuple[tuple[Pairs, ...], ...] | None = None  # of each phase: one, if it is always the same

    @property
    def period(self) -> int:
        return self.weight.shape[0]

    @property
    def described(self) -> str:
        """What of the form is static."""
        period = f" period {len(self.index)}/{self.period}" * (self.period > 1)
        through = "" if self.pairs is None else f" through {self.pairs}"
        return f"neighbours of {self.index.shape[-1]}{' columns' * self.columns}{period}{through}"

    def at(self, step: Whole) -> Neighbours:
        return replace(self, index=_at(self.index, step), weight=_at(self.weight, step))

    def outflow(self, arrived: jax.Array | None) -> Array:
        weight = self.weight if arrived is None else jnp.where(arrived, self.weight, 0)
        return jnp.zeros(self.weight.shape[0], self.weight.dtype).at[self.index].add(weight)

    def travel(self, step: Whole, send: Callable[[tuple[Pairs, ...]], Any]) -> Any:
        """`send` over the permutations of this step's phase."""
        assert self.pairs is not None
        if len(self.pairs) == 1:
            return send(self.pairs[0])
        return lax.switch(step % len(self.pairs), [partial(send, phase) for phase in self.pairs])


Form = Dense | Neighbours


def form(
    w: Matrix,
    kind: str = "auto",
    *,
    columns: bool = False,
    devices: bool = False,
    rows: bool = False,
    steps: int = 1,
    seed: int = 0,
) -> Form:
    """The form in which W runs.

    Args:
      w: [n, n], dense or sparse, a period [period, n, n], or random `Matchings`.
      kind: one of `FORMS`.
      columns: take it as column-stochastic where it is both; what is not row-stochastic is taken so anyway.
      devices: each worker has a device, so that permutations can travel.
      rows: workers are rows of an array that lies on several devices, so that shifts can.
      steps, seed: of a random sequence: how many graphs to draw, and from what.

    Raises:
      InputError: an unknown kind, or permutations where there are no devices or the sequence is random.
    """
    w = as_matrix(w)
    _check_kind(kind, devices or rows)
    if isinstance(w, Matchings):
        return _matchings(w, kind, columns, devices, steps, seed)
    columns = columns or not is_stochastic(w, 1)
    if issparse(w) and not devices and kind in ("auto", "neighbours"):
        return _sparse_lists(w, columns)
    several = _several(w)
    off = several * (1 - np.eye(several.shape[-1]))
    degree = _degree(off != 0)
    if kind == "auto":
        kind = _choose(off.shape[-1], degree, is_connected(w), devices)
    if kind == "dense":
        return Dense(off, columns)
    if kind == "neighbours":
        return _lists(off, np.stack([_senders(phase != 0, degree) for phase in off]), columns)
    index = _permuted(off != 0, shifts if rows else permutations)
    return replace(_lists(off, index, columns), pairs=tuple(_pairs(phase) for phase in index))


def _check_kind(kind: str, travels: bool) -> None:
    """Refuse an unknown form, and permutations where nothing travels."""
    if kind not in FORMS:
        raise InputError(f"mix: unknown form {kind!r}{did_you_mean(kind, FORMS)}")
    if kind == "permutations" and not travels:
        raise InputError(
            "mix: permutations travel between devices; use executor pmap, shard_map or mesh, or leave mix out"
        )


def _permuted(links: np.ndarray, cut: Callable[[np.ndarray], list[np.ndarray]]) -> np.ndarray:
    """[period, n, k] int32: from whom each worker receives in each of a few permutations; itself: from nobody."""
    phases = [cut(phase) for phase in links]
    most = max(1, *map(len, phases))
    nobody = np.arange(links.shape[-1], dtype=np.int32)
    return np.stack([np.stack([*phase, *[nobody] * (most - len(phase))], 1) for phase in phases])


def _several(w: np.ndarray | csr_array) -> np.ndarray:
    """[period, n, n]."""
    dense: np.ndarray = sparse.dense(w)
    return dense if dense.ndim == 3 else dense[None]


def _choose(n: int, degree: int, connected: bool, devices: bool) -> str:
    if devices:
        return "permutations" if degree < n - 1 else "dense"
    # never dense where it falls apart: 0 x NaN would carry one part's NaN to the other
    return "neighbours" if not connected or (n > DENSE_UP_TO and degree * sparse.SPARSE <= n) else "dense"


def _degree(links: np.ndarray) -> int:
    """Most senders of any worker."""
    return max(1, int(links.sum(-1).max()))


def _senders(links: np.ndarray, width: int) -> np.ndarray:
    """[n, width] int32: the senders of each worker, ascending, padded with itself."""
    index = np.tile(np.arange(len(links), dtype=np.int32)[:, None], (1, width))
    reader, sender = np.nonzero(links)
    index[reader, _seats(reader)] = sender
    return index


def _seats(reader: np.ndarray) -> np.ndarray:
    """[links]: the place of each among its reader's links; `reader` ascends."""
    return np.arange(len(reader)) - np.searchsorted(reader, reader)


def _sparse_lists(w: csr_array, columns: bool) -> Neighbours:
    """The lists of a sparse W: those that it would have if it were dense."""
    off = sparse.without_own(w)
    n, width = w.shape[0], max(1, sparse.degree(off))
    reader = np.repeat(np.arange(n), np.diff(off.indptr))
    index, weight = np.tile(np.arange(n, dtype=np.int32)[:, None], (1, width)), np.zeros((n, width))
    index[reader, _seats(reader)] = off.indices
    weight[reader, _seats(reader)] = off.data
    return Neighbours(index[None], weight[None], columns)


def _lists(off: np.ndarray, index: np.ndarray, columns: bool) -> Neighbours:
    return Neighbours(index, np.take_along_axis(off, index, -1), columns)


def permutations(links: np.ndarray) -> list[np.ndarray]:
    """As few partial permutations as have all links in them: as many as the largest degree (König 1916).

    Args:
      links: [n, n] bool; [i, j]: j sends to i.

    Returns:
      [n] int32 each: from whom each worker receives, itself: from nobody.
    """
    left = links.astype(np.int64)
    degree = max(int(np.max(left.sum(0))), int(np.max(left.sum(1))))
    # filled up until all have that degree, it is a union of so many perfect matchings
    fill, row, column = np.zeros_like(left), degree - left.sum(1), degree - left.sum(0)
    i = j = 0
    while i < len(left) and j < len(left):
        more = min(row[i], column[j])
        fill[i, j] += more
        row[i] -= more
        column[j] -= more
        i, j = (i + 1, j) if row[i] == 0 else (i, j + 1)
    found = []
    for _ in range(degree):
        sender = csgraph.maximum_bipartite_matching(csr_array(left + fill), perm_type="column").astype(np.int32)
        rows = np.arange(len(left), dtype=np.int32)
        real = left[rows, sender] > 0
        left[rows[real], sender[real]] = 0
        fill[rows[~real], sender[~real]] -= 1
        found.append(np.where(real, sender, rows).astype(np.int32))
    return found


def shifts(links: np.ndarray) -> list[np.ndarray]:
    """The shifts of all workers that have all links in them; arguments and result as of `permutations`."""
    rows = np.arange(len(links), dtype=np.int32)
    each = [(rows - by) % len(links) for by in range(1, len(links))]
    return [np.where(links[rows, sender], sender, rows) for sender in each if links[rows, sender].any()]


def _pairs(index: np.ndarray) -> tuple[Pairs, ...]:
    """The permutations of lists [n, k]: (sender, reader), those who receive from nobody left out."""
    return tuple(
        tuple((int(sender), reader) for reader, sender in enumerate(column) if sender != reader) for column in index.T
    )


def _matchings(w: Matchings, kind: str, columns: bool, devices: bool, steps: int, seed: int) -> Form:
    partner, active = w.draw(seed, steps)  # [T or 1, matchings, n], [steps, matchings]
    index = np.swapaxes(partner, 1, 2).astype(np.int32)  # [T or 1, n, matchings]
    met = index != np.arange(len(w), dtype=np.int32)[:, None]
    weight = w.weight * (met & active[:, None, :])
    fixed = w.partners is not None
    if kind == "auto":
        kind = "permutations" if devices and fixed else "neighbours"
    if kind == "permutations" and not fixed:
        raise InputError("mix: a matching that is drawn anew each step has no fixed permutations; use mix=neighbours")
    if kind == "dense":
        off = np.zeros((steps, len(w), len(w)))
        step, reader, slot = np.nonzero(weight)
        off[step, reader, np.broadcast_to(index, weight.shape)[step, reader, slot]] = weight[step, reader, slot]
        return Dense(off, columns)
    lists = Neighbours(index, weight, columns)
    return lists if kind == "neighbours" else replace(lists, pairs=(_pairs(index[0]),))


def links(w: Matrix, seed: int = 0) -> Callable[[int], np.ndarray]:
    """K -> [n, n] bool: which links carry something at the k-th mix; [i, j]: j sends to i."""
    if isinstance(w, Matchings):
        chunk = 256  # drawn ahead, a chunk at a time: the first ones do not depend on how many

        @lru_cache(maxsize=2)
        def drawn(number: int) -> np.ndarray:
            return np.asarray(form(w, "dense", steps=number * chunk, seed=seed).weight[-chunk:] != 0)

        return lambda k: drawn(k // chunk + 1)[k % chunk]
    several = _several(w)
    found = (several != 0) & ~np.eye(several.shape[-1], dtype=bool)
    return lambda k: found[k % len(found)]


def messages(w: Matrix, count: int, seed: int = 0) -> np.ndarray:
    """[count + 1] int64: how many messages all workers together have sent after so many mixes."""
    if isinstance(w, Matchings):
        per_mix = (form(w, "neighbours", steps=max(count, 1), seed=seed).weight != 0).sum((1, 2))[:count]
    elif issparse(w):
        per_mix = np.array([sparse.without_own(w).nnz])
    else:
        several = _several(w)
        per_mix = np.count_nonzero(several, axis=(1, 2)) - np.count_nonzero(
            np.diagonal(several, axis1=1, axis2=2), axis=1
        )
    return np.concatenate([[0], np.cumsum(np.resize(per_mix, count), dtype=np.int64)])
