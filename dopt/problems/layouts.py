"""How one model lies on S devices, the axis "model": by tensors or by layers. Both give the gradient of the whole model.

By tensors (Megatron-LM: Shoeybi et al. 2019, 1909.08053, section 3): of two products in a row, f(x A) B, the first is
split by columns, the second by rows, so that one `psum` makes a whole of them: f(x A) B = Σₛ f(x Aₛ) Bₛ.

By layers (GPipe: Huang et al. 2018, 1811.06965): device s has a stage, the s-th stretch of layers. A batch is cut into M
micro-batches that enter stage 0 one a tick; after each tick `ppermute` hands what a stage made on to the next one. The
last leaves stage S - 1 after M + S - 1 ticks. What is before and after the stretches (an embedding, a readout) is not
split.

A part's program is written once, for one device, as a worker's is. Here `vmap` simulates the S of them; on sharded
arrays (the executor `mesh`) the compiler makes messages between devices of the same collectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dopt.permute import onward
from dopt.registry import did_you_mean
from dopt.types import MODEL, PARTS, WHOLE, InputError, Key, Layout, Params, Tree

LAYOUTS = ("none", "tensors", "layers")
OPTIONS = ("layout", "parts", "micro_batches")  # of a problem whose model can lie on several devices

Split = Callable[[tuple[str, ...]], int | None]  # path of a leaf -> the axis along which it is split; None: it is not


def check(layout: str, parts: int, micro_batches: int) -> None:
    """Refuse an unknown layout, and numbers that it does not read or that cannot be."""
    if layout not in LAYOUTS:
        raise InputError(f"problem.layout: unknown name {layout!r}{did_you_mean(layout, LAYOUTS)}")
    if layout == "none" and parts != 1:
        raise InputError(
            f"problem.parts: a model without a layout is not split, got {parts}; set problem.layout to tensors or layers"
        )
    if layout != "none" and parts < 2:
        raise InputError(
            f"problem.parts: {layout} split a model into at least 2, got {parts}; leave problem.layout out for 1"
        )
    if layout != "layers" and micro_batches != 1:
        raise InputError(
            f"problem.micro_batches: only problem.layout=layers reads it, got {micro_batches} with layout={layout}; leave it out"
        )
    if micro_batches < 1:
        raise InputError(f"problem.micro_batches: must be at least 1, got {micro_batches}")


def check_multiple(name: str, value: int, parts: int) -> None:
    """Refuse what cannot be split evenly."""
    if value % parts:
        near = parts * max(1, round(value / parts))
        raise InputError(f"problem.{name}: must be a multiple of problem.parts={parts}, got {value}; use {near}")


def readable(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a problem without those that their layout does not read."""
    unread = {"none": ("parts", "micro_batches"), "tensors": ("micro_batches",)}.get(given.get("layout", "none"), ())
    return {name: value for name, value in given.items() if name not in unread}


def make(parts: int, axis: Split, micro_batches: int = 1) -> Layout:
    """The layout that splits each leaf of nested dicts along its `axis`."""

    def split(params: Params) -> Params:
        flat = _flat(params)
        cut = {path: _cut(x, along, parts) for path, x in flat.items() if (along := axis(path)) is not None}
        return {PARTS: _nested(cut), WHOLE: _nested({p: x for p, x in flat.items() if p not in cut})}

    def whole(params: Params) -> Params:
        cut = _flat(params[PARTS])
        return merge(_nested({path: _joined(x, axis(path)) for path, x in cut.items()}), params[WHOLE])

    return Layout(parts, split, whole, micro_batches)


def start(init: Callable[[Key], Params], layout: Layout | None) -> Callable[[Key], Params]:
    """The same numbers as without a layout, laid out."""
    return init if layout is None else lambda key: layout.split(init(key))


def _cut(x: jax.Array, axis: int, parts: int) -> jax.Array:
    """[..., size, ...] -> [parts, ..., size / parts, ...]."""
    return jnp.stack(jnp.split(x, parts, axis))


def _joined(x: jax.Array, axis: int | None) -> jax.Array:
    """The inverse of `_cut`."""
    assert axis is not None
    return jnp.concatenate(list(x), axis)


def merge(own: Tree, whole: Tree) -> Tree:
    """One part's params, in the form that they have without a layout."""
    return _nested(_flat(own) | _flat(whole))


def _flat(nested: Tree) -> dict[tuple[str, ...], jax.Array]:
    """Path -> leaf of nested dicts."""
    from flax.traverse_util import flatten_dict

    found: dict[tuple[str, ...], jax.Array] = flatten_dict(nested)
    return found


def _nested(flat: Mapping[tuple[str, ...], jax.Array]) -> Tree:
    """And back."""
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(flat)


def _over_parts(part: Callable, parts: int, *mapped: bool) -> Callable:
    """A part's program on all of them; it returns what is the same on all."""
    axes = tuple(0 if m else None for m in mapped)
    return jax.vmap(part, axes, out_axes=None, axis_name=MODEL, axis_size=parts)


def by_tensors(apply: Callable[[Params, Any, Callable], Tree], parts: int) -> Callable[[Params, Any], Tree]:
    """(params of a layout, x) -> what `apply` gives, which sums by its third argument over the parts."""

    def part(own: Tree, whole: Tree, x: jax.Array) -> Tree:
        return apply(merge(own, whole), x, lambda y: lax.psum(y, MODEL))

    over_all = _over_parts(part, parts, True, False, False)
    return lambda params, x: over_all(params[PARTS], params[WHOLE], x)


def by_layers(
    stage: Callable[[Tree, jax.Array], jax.Array], own: Tree, h: jax.Array, parts: int, micro_batches: int
) -> jax.Array:
    """stage(own[S - 1], ... stage(own[0], h)), micro-batch by micro-batch.

    A batch that M does not divide, as metrics may have, is cut into as many as divide both.

    Args:
      stage: (its layers, h) -> h of the same shape [samples, ...], each sample for itself.
      own: leaves [parts, ...], the layers of each stage.
      h: [batch, ...].
    """
    cut = h.reshape(math.gcd(micro_batches, len(h)), -1, *h.shape[1:])
    entering = jnp.concatenate([cut, jnp.zeros((parts - 1, *cut.shape[1:]), h.dtype)])  # nothing, while the last leave

    def part(own: Tree, entering: jax.Array) -> jax.Array:
        number = lax.axis_index(MODEL)

        def tick(received: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
            made = stage(own, jnp.where(number == 0, new, received))
            # what the last one sends to the first closes the ring, and is not looked at
            return onward(made, number, parts, MODEL), made

        _, made = lax.scan(tick, jnp.zeros_like(cut[0]), entering)
        left = made[parts - 1 :]  # the last stage's first ticks are idle
        return lax.psum(jnp.where(number == parts - 1, left, 0), MODEL)

    return _over_parts(part, parts, True, False)(own, entering).reshape(h.shape)
