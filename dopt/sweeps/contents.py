"""What a plan says that it holds, taken at its word: no run is made of it, so that it needs neither JAX nor what runs stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dopt.paths import slug
from dopt.types import InputError

MOST_THREADS = 4096  # that anybody is believed to have


def slabs(plan: Mapping[str, Any], path: Path) -> list[tuple[str, list[str]]]:
    """The slabs of a plan, and the ids of their runs.

    Raises:
      InputError: it is no plan, whatever its checksum says.
    """
    with damage(path):
        check_head(plan)
        found = [(slab["name"], slab["id"]) for group in plan["groups"] for slab in group["slabs"]]
        if not all(isinstance(name, str) and slug(name) == name and isinstance(ids, list) for name, ids in found):
            raise ValueError("it has invalid slabs")
        ids = [identity for _, each in found for identity in each]
        if not all(isinstance(identity, str) for identity in ids):
            raise ValueError("its ids are not text")
        check_order(ids, plan["order"])
        return found


def groups(plan: Mapping[str, Any], path: Path) -> list[tuple[Mapping[str, Any], list[str]]]:
    """(the key of its program, its slabs) of each group of a plan.

    Raises:
      InputError: it is no plan, whatever its checksum says.
    """
    with damage(path):
        keys = [group["key"] if isinstance(group.get("key"), dict) else {} for group in plan["groups"]]
        return [
            (key, [slab["name"] for slab in group["slabs"]]) for key, group in zip(keys, plan["groups"], strict=True)
        ]


TELLING = ("mix", "delays", "clock", "problem", "data", "workers", "steps", "batch_size", "precision", "executor")
LONGEST = 60  # characters of a label


def labels(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """What groups are called: by their method, and by what else tells them apart. `keys`: of their programs."""
    methods = [str(key.get("algorithm")) for key in keys]
    varied = [name for name in TELLING if len({str(key.get(name)) for key in keys}) > 1]
    found: list[str] = []
    for method, key in zip(methods, keys, strict=True):
        more = [f"{name}={key.get(name)}" for name in varied] if methods.count(method) > 1 else []
        label = " ".join([method, *more])[:LONGEST]
        found.append(label if label not in found else f"{label[: LONGEST - 6]} ({len(found) + 1})")
    return found


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """InputError, in one line, for whatever a reader of a plan meets that nobody can have written."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(
            f"results: {path} is damaged ({what}); move its folder away, or choose another folder with --results"
        ) from error


def check_head(plan: Mapping[str, Any]) -> None:
    """ValueError where a plan lacks what a reader needs of it."""
    kinds = {
        "name": str,
        "merged": int,
        "extended": bool,
        "varied": list,
        "columns": list,
        "order": list,
        "digests": list,
        "templates": list,
        "groups": list,
    }
    for name, kind in kinds.items():
        if not isinstance(plan.get(name, False if kind is bool else None), kind):
            raise ValueError(f"its {name} is missing or invalid")
    threads = plan.get("threads", 1)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise ValueError("its number of threads is invalid")
    if not all(isinstance(word, str) for name in ("varied", "columns", "order", "digests") for word in plan[name]):
        raise ValueError("its names are not text")


def check_order(ids: Sequence[str], order: Sequence[str]) -> None:
    """ValueError unless the order names each of these runs once."""
    if sorted(ids) != sorted(order) or len(set(ids)) != len(ids):
        raise ValueError("its order does not name each of its runs once")
