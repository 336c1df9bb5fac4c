"""A sweep as an Indexed Job of Kubernetes, and the sweep file as a ConfigMap beside it: plain data, written as YAML.

All pods mount one volume. They share one results folder on it, slab by slab; or each has a folder of its own and a fixed share of
the slabs, where the volume's file system is none that several pods can write to together (a bucket, say).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import yaml

from dopt.launch.share import check_line
from dopt.text import quoted
from dopt.types import InputError

GRACE = 60  # seconds between SIGTERM and SIGKILL
TRIES = 3  # times that a pod may fail by itself; one that is evicted, or loses its machine, does not count
FILES, RESULTS = "/sweep", "/results"  # where a pod sees the sweep file, and the volume
LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
LONGEST = 63  # characters of a label, as pods get one from the name of their job and their number
POSITIVE = r"(?=.*[1-9])[0-9]+(\.[0-9]+)?"
# what may be given -> (its pattern, the same in words)
RULES = {
    "image": (r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "the name of an image"),
    "claim": (rf"{LABEL}(\.{LABEL})*", "the name of a PersistentVolumeClaim"),
    "namespace": (LABEL, "lower-case letters, digits and '-'"),
    "name": (LABEL, "lower-case letters, digits and '-'"),
    "gpus": ("[1-9][0-9]*", "at least 1"),
    "cpu": (f"{POSITIVE}|[1-9][0-9]*m", "cores, such as 4, 0.5 or 500m"),
    "memory": (f"{POSITIVE}([kMGTPE]|[KMGTPE]i)?", "bytes, or a size such as 16Gi"),
}


def check(given: Mapping[str, str]) -> None:
    """InputError where something is not what Kubernetes takes; names are those of `RULES`."""
    for name, value in given.items():
        pattern, rule = RULES[name]
        if not re.fullmatch(pattern, value):
            raise InputError(f"{name}: must be {rule}, got {quoted(value)}")


def default_name(sweep: str) -> str:
    """A name for the job of a sweep."""
    return re.sub("[^a-z0-9]+", "-", f"dopt-{sweep.lower()}")[:50].strip("-")


def render(
    file: Path,
    text: str,
    arguments: Sequence[str],
    results: str,
    pods: int,
    is_shared: bool,
    given: Mapping[str, str],
    beside: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """The ConfigMap and the Job.

    Args:
      file: the sweep file; pods see it under the same name.
      text: what it says.
      beside: files that lie beside it, as those that it imports: relative path -> text.
      arguments: of `dopt sweep`, beside the file and the folder of results.
      results: the folder on the volume.
      pods: how many.
      is_shared: one folder for all pods; else pods have one each, and a share of the slabs.
      given: values by their names in `RULES`, as they passed `check`; image, claim, name and cpu are always there.

    Raises:
      InputError: the name is too long, or the folder is none on the volume.
    """
    _check_name(given["name"], pods)
    place = PurePosixPath(results)
    check_line("results", results)
    if place.is_absolute() or ".." in place.parts:
        raise InputError(f"results: must be a folder on the claim, as studies/mine, got {quoted(results)}")
    words = ["sweep", f"{FILES}/{file.name}", *arguments]
    for word in words:
        check_line("kubernetes", word)
    keys = {"sweep": file.name, **{f"import-{number}": path for number, path in enumerate(beside)}}
    data = dict(zip(keys, [text, *beside.values()], strict=True))
    about = {"name": given["name"], **({"namespace": given["namespace"]} if "namespace" in given else {})}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(about), "immutable": True, "data": data},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": dict(about),
            "spec": {
                "completionMode": "Indexed",
                "completions": pods,
                "parallelism": pods,
                "backoffLimitPerIndex": TRIES,
                "podFailurePolicy": {"rules": _rules()},
                "template": {"spec": _pod(keys, _command(words, f"{RESULTS}/{place}", pods, is_shared), given)},
            },
        },
    ]


def written(objects: Sequence[Mapping[str, Any]]) -> str:
    """YAML of one document each."""
    return yaml.safe_dump_all(objects, explicit_start=True, sort_keys=False, allow_unicode=True)


def _check_name(name: str, pods: int) -> None:
    most = LONGEST - len(f"-{pods - 1}")
    if len(name) > most:
        raise InputError(
            f"name: must have at most {most} characters, since the name of a pod adds a number to it, got {len(name)}"
        )


def _command(words: Sequence[str], results: str, pods: int, is_shared: bool) -> list[str]:
    """What a pod runs; its number, from 0, is in its environment. dopt is the first process, which hears SIGTERM."""
    command = ["dopt", *words, f"--results={results}"]
    if not is_shared:
        script = f'i=$((JOB_COMPLETION_INDEX + 1)); exec dopt "$@" --results={shlex.quote(results)}/shard-$i --shard $i/{pods}'
        command = ["sh", "-c", script, "sh", *words]
    return [_literal(word) for word in command]


def _literal(word: str) -> str:
    """A word of a command in which Kubernetes finds no variable of its own, as it would in $(NAME)."""
    return word.replace("$(", "$$(")


def _rules() -> list[dict[str, Any]]:
    """Which ends of a pod are no failure of it, and which are one of all."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},  # bad input
    ]


def _pod(files: Mapping[str, str], command: Sequence[str], given: Mapping[str, str]) -> dict[str, Any]:
    # a limit of cores, too: by it dopt knows how many processes to start
    items = [{"key": key, "path": path} for key, path in files.items()]
    named = {"cpu": "cpu", "memory": "memory", "gpus": "nvidia.com/gpu"}
    resources = {theirs: given[ours] for ours, theirs in named.items() if ours in given}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "containers": [
            {
                "name": "dopt",
                "image": given["image"],
                "command": list(command),
                "resources": {"limits": resources, "requests": dict(resources)},
                "volumeMounts": [
                    {"name": "sweep", "mountPath": FILES, "readOnly": True},
                    {"name": "results", "mountPath": RESULTS},
                ],
            }
        ],
        "volumes": [
            {"name": "sweep", "configMap": {"name": given["name"], "items": items}},
            {"name": "results", "persistentVolumeClaim": {"claimName": given["claim"]}},
        ],
    }
