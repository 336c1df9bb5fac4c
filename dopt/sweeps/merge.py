"""Several folders of one sweep become one: plans are compared, and each slab is checked before it is copied, whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dopt.config import Runs
from dopt.config.identity import differences
from dopt.config.runs import joined, places
from dopt.files import reason, write
from dopt.sweeps import contents, seal
from dopt.sweeps.store import MANIFEST, TABLES, SlabError, Store
from dopt.sweeps.tracking import online
from dopt.text import quoted
from dopt.types import InputError, MachineError

ALIKE = "; shards have the same plan only if the sweep file, the dopt and the kind of machine are the same"


@dataclass
class Merged:
    """What came of it.

    Attributes:
      folder: where all lies now.
      name: the sweep's.
      there: slabs that lay there before.
      came: of each other folder, how many slabs came from it.
      twice: slabs that several folders had, with the same tables; the first one was taken.
      differing: a line for each slab of which two folders have other tables; the first one was taken.
      faults: a line for each slab that was found damaged, and left out.
      missing: names of slabs that no folder has.
      missing_runs: how many runs they have.
    """

    folder: Path
    name: str
    there: int = 0
    came: dict[Path, int] = field(default_factory=dict)
    twice: int = 0
    differing: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    missing_runs: int = 0


class _Source:
    """A folder of a sweep, and its plans: of each the slabs, and the ids of their runs."""

    def __init__(self, store: Store):
        self.store, self.folder, self.paths = store, store.folder, store.plan_paths()
        self.plans = [store.plan(path) for path in self.paths]
        self.indices = [contents.slabs(plan, path) for plan, path in zip(self.plans, self.paths, strict=True)]

    @property
    def name(self) -> str:
        return str(self.plans[-1]["name"])

    @property
    def slabs(self) -> list[tuple[str, list[str]]]:
        """All slabs of its plans, and the ids of their runs."""
        return [slab for each in self.indices for slab in each]

    def check_same(self, other: _Source) -> None:
        """InputError where the other folder is not of this sweep, or was planned otherwise. One may have grown further."""
        if other.name != self.name:
            raise InputError(
                f"merge: {other.folder} holds the sweep {quoted(other.name)}, and {self.folder} {quoted(self.name)}; give each sweep a folder of its own"
            )
        for number, (ours, theirs) in enumerate(zip(self.indices, other.indices, strict=False)):
            if ours != theirs:
                raise InputError(
                    f"merge: {other.paths[number]} differs from {self.paths[number]}: {self._difference(other, number)}{ALIKE}"
                )

    def _difference(self, other: _Source, number: int) -> str:
        """What two plans of that number do not have in common, in words."""
        ours, theirs = ({run for _, ids in of.indices[number] for run in ids} for of in (self, other))
        if ours == theirs:
            here, there = len(self.indices[number]), len(other.indices[number])
            return (
                f"it has the same {len(ours)} runs in {there} slabs, not {here}"
                if here != there
                else "its slabs differ"
            )
        fields = _fields(*(of.runs(number) for of in (self, other)))
        what = f" (they differ in {', '.join(fields)})" * bool(fields)
        return f"{len(theirs - ours)} of its {len(theirs)} runs are different{what}"

    def runs(self, number: int) -> Runs | None:
        """The runs of a plan; None where it is of an older dopt, whose runs had other fields."""
        from dopt.sweeps import plan as planning  # takes JAX, which nothing else here needs

        plan, path = self.plans[number], self.paths[number]
        try:
            self.store.check_goes_on(path, plan)
        except InputError:
            return None
        return joined([p.runs for p in planning.read(plan, path)])


def _fields(ours: Runs | None, theirs: Runs | None) -> list[str]:
    """The fields in which runs differ; where they are the same, what they stand for."""
    if ours is None or theirs is None:
        return []
    names = dict.fromkeys(name for runs in (ours, theirs) for like in runs.kinds for name in like.to_dict())
    values = [{name: set(map(repr, runs.values(name))) for name in names} for runs in (ours, theirs)]
    found = [name for name in names if values[0][name] != values[1][name]]
    if found:
        return found
    pairs = [(ours[place], run) for run, place in zip(theirs, places(ours, theirs).tolist(), strict=True) if place >= 0]
    return list(dict.fromkeys(name for a, b in pairs for name in differences(a.digests, b.digests)))


def merge(out: str | Path, *folders: str | Path) -> Merged:
    """Put the slabs of several folders of one sweep into one folder, which may be new, or be of that sweep already.

    Each slab is checked before it is copied, and appears whole or not at all. Of two slabs of a name the first is taken. The
    folders that are merged are only read.

    Raises:
      InputError: a folder holds no sweep, or another one, or one that was planned otherwise; nothing is written then.
      MachineError: a folder cannot be read, or `out` cannot be written; slabs that are there are kept.
    """
    if not folders:
        raise InputError("merge: needs a folder to merge into OUT, got none")
    target, sources = Store(out), [_source(Store(folder)) for folder in folders]
    there = _Source(target)
    planned = [of for of in (there, *sources) if of.plans]
    longest = max(planned, key=lambda of: len(of.plans))  # the others are as it was before it grew
    for of in planned:
        longest.check_same(of)
    if not there.plans and target.has_slabs():
        raise InputError(f"merge: {target.folder} has slabs but no plan, so it is unknown which sweep they belong to")
    whole = _planned(target, longest, grows=len(there.plans) < len(longest.plans))
    done = Merged(target.folder, whole.name)
    first = {
        name: (target.folder, target.manifest(name)["sha256"])
        for name, ids in whole.slabs
        if target.finished(name, ids, done.faults.append)
    }
    done.there = len(first)
    for source in sources:
        if source.folder.samefile(target.folder):
            continue
        _copy_matrices(source, target)
        came = [_take(name, ids, source, target, first, done) for name, ids in source.slabs]
        done.came[source.folder] = sum(came)
    missing = [(name, len(ids)) for name, ids in whole.slabs if name not in first]
    done.missing, done.missing_runs = [name for name, _ in missing], sum(runs for _, runs in missing)
    return done


def _source(store: Store) -> _Source:
    found = _Source(store)
    if not found.plans:
        raise InputError(f"merge: no sweep in {str(store.folder)!r} (no plan)")
    return found


def _planned(target: Store, longest: _Source, grows: bool) -> _Source:
    """The target, with all plans."""
    target.create()
    with target.locked("plan", wait=True):
        for path in longest.paths:
            _copy(path, target.folder / path.relative_to(longest.folder))
        for path in (longest.store.reading_path, longest.store.text_path):
            if grows and path.is_file():
                _copy(path, target.folder / path.name, anew=True)
    found = _Source(target)
    longest.check_same(found)  # somebody may have planned there meanwhile
    return found


def _take(
    name: str,
    ids: Sequence[str],
    source: _Source,
    target: Store,
    first: dict[str, tuple[Path, dict[str, str]]],
    done: Merged,
) -> bool:
    """Whether a slab came from a folder. `first`: of each slab that is there, whence it came, and its sums."""
    try:
        if not source.store.has(name):
            return False
        files = source.store.slab_files(name, ids)
    except SlabError as error:
        done.faults.append(f"merge: {error}; left out")
        return False
    sums = _sums(files)
    if name not in first:
        target.put_slab(name, files)
        marks = online(source.store.marks_path(name))
        if marks:  # W&B has them, wherever they lie
            write(target.marks_path(name), marks)
        first[name] = source.folder, sums
        return True
    before, theirs = first[name]
    differ = [file for file in TABLES if sums[file] != theirs[file]]
    if differ:
        words = (
            ("differs from that of", "which is kept")
            if len(differ) == 1
            else ("differ from those of", "which are kept")
        )
        done.differing.append(
            f"merge: {name}: {' and '.join(differ)} of {source.folder} {words[0]} {before}, {words[1]}"
        )
    else:
        done.twice += 1
    return False


def _sums(files: Mapping[str, bytes]) -> dict[str, str]:
    return dict(seal.parse(files[MANIFEST])["sha256"])


def _copy_matrices(source: _Source, target: Store) -> None:
    """What a solver found for the plans; it is compared with them before it is used."""
    for path in sorted((source.folder / "matrices").glob("*.npz")):
        _copy(path, target.matrix_path(path.stem))


def _copy(path: Path, place: Path, anew: bool = False) -> None:
    """Copy a file to where none is; `anew`: or one is."""
    if place.exists() and not anew:
        return
    try:
        content = path.read_bytes()
        place.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(f"merge: cannot copy {str(path)!r} to {str(place)!r} ({reason(error)})") from error
    write(place, content)
