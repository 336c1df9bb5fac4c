"""What the loop replays of a run's clock: steps behind a barrier, waves of workers that wait for nobody, or arrivals.

All three answer the same questions, so that nobody else asks which one it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dopt import schedule
from dopt.algorithms.server import Arrivals as Updates
from dopt.facts.inputs import Turns


class Room(NamedTuple):
    """The shapes that a group gives the arrays of its replays: the most that any of its runs needs."""

    stretch: int  # iterations between two records
    iterations: int  # of all calls together
    gradients: int  # of an update
    dtype: np.dtype
    shares: np.ndarray | None  # [workers] what an arrival counts by its worker's share; None: nothing


class Messages(NamedTuple):
    """What travels in a run, as far as its clock does not say it."""

    workers: int
    model: float  # bytes of one, as it travels to a server or to whom one meets
    bits: int  # over a link at a mixing
    together: Callable[[np.ndarray], dict[str, np.ndarray]]  # steps that all make together -> as `sent` of these


@dataclass(frozen=True, eq=False)
class Steps:
    """All workers make a step together."""

    line: schedule.Barrier | schedule.Waves

    @property
    def length(self) -> int:
        """Steps of the run."""
        return len(self.line.time)

    @property
    def stalls(self) -> bool:
        """Whether the next step would never be done."""
        return self.line.stalled

    @property
    def end(self) -> float:
        """Seconds at which the last step is done."""
        return float(self.line.time[-1]) if len(self.line.time) else np.inf

    @property
    def waves(self) -> int | None:
        """Waves between two records; None: a step is an iteration."""
        return None

    @property
    def kept(self) -> int:
        """Models that the replay keeps."""
        return 1

    @property
    def gradients(self) -> int:
        """Gradients of an update."""
        return 1

    def iterations(self, room: Room) -> int:
        """Iterations of the loop."""
        return self.length

    def arrays(self, room: Room) -> dict[str, Any]:
        """What the program is given to replay: fields of `Inputs`."""
        return {}

    def axes(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients computed, and seconds passed, after so many steps."""
        return {"gradients": _after(self.line.gradients, steps), "time": _after(self.line.time, steps)}

    def sent(self, steps: np.ndarray, messages: Messages) -> dict[str, np.ndarray]:
        """Bytes sent by a worker in the mean, and by a server, after so many steps."""
        return messages.together(steps)


@dataclass(frozen=True, eq=False)
class Waves(Steps):
    """Workers that wait for nobody, in waves that read what was there before them; a step is an update of each, in the mean."""

    line: schedule.Waves

    @property
    def waves(self) -> int | None:
        return int(self.line.applied.shape[1])

    def iterations(self, room: Room) -> int:
        return room.stretch * len(self.line.applied)

    def arrays(self, room: Room) -> dict[str, Any]:
        """Whose turn it is: each stretch filled up to as many waves as the longest of the group has."""

        def filled(x: np.ndarray) -> np.ndarray:
            x = _padded(x, 0, room.stretch - x.shape[1], 0).reshape(-1, x.shape[-1])
            return _padded(x, room.iterations - len(x), 0)

        return {"turns": Turns(filled(self.line.applied), filled(self.line.number))}

    def axes(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Those of steps, and how old the models were that were mixed in since the last record."""
        ages = {"staleness_mean": self.line.age_mean, "staleness_max": self.line.age_max}
        return super().axes(steps) | {name: _at_records(x, len(steps)) for name, x in ages.items()}

    def sent(self, steps: np.ndarray, messages: Messages) -> dict[str, np.ndarray]:
        return {"bytes_sent": _after(self.line.messages, steps) * messages.bits / (8 * messages.workers)}


class Arrivals(NamedTuple):
    """Workers deliver one by one, to a server or to each other; a step is an update."""

    line: schedule.Schedule
    replay: schedule.Batches
    partner: np.ndarray | None  # [steps] int32: whom the worker meets; None: there is a server
    local_steps: int = 1  # gradients between a pull and a push

    @property
    def length(self) -> int:
        return self.line.steps

    @property
    def stalls(self) -> bool:
        return self.line.stalled

    @property
    def end(self) -> float:
        return self.line.end

    @property
    def waves(self) -> int | None:
        return None

    @property
    def kept(self) -> int:
        return self.replay.kept

    @property
    def gradients(self) -> int:
        return int(self.replay.rows.shape[1])

    def iterations(self, room: Room) -> int:
        return self.length

    def arrays(self, room: Room) -> dict[str, Any]:
        """Update by update, whose gradients it is made of."""
        line, rows = self.line, self.replay.rows
        steps, wide = rows.shape
        more = room.iterations - steps

        def filled(x: np.ndarray) -> np.ndarray:
            return _padded(x, *(more, room.gradients - wide)[: x.ndim])

        weight = self.replay.weight
        if room.shares is not None:
            weight = weight * room.shares[line.worker[rows]]
        return {
            "arrivals": Updates(
                filled(line.worker[rows]),
                filled(line.batch[rows]),
                filled(line.staleness.astype(np.int32)[rows]),
                filled(weight.astype(room.dtype)),
                filled(self.replay.read),
                filled(self.replay.write),
                None if self.partner is None else _padded(self.partner, more),
            )
        }

    def axes(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "gradients": _after(self.local_steps * self.replay.computed, steps),
            "time": _after(self.replay.time, steps),
        }

    def sent(self, steps: np.ndarray, messages: Messages) -> dict[str, np.ndarray]:
        """Two models where two meet; else a gradient up for each that is delivered, and a model down for each that is pulled."""
        if self.partner is not None:
            return {"bytes_sent": 2 * messages.model * steps / messages.workers}
        up, down = (_after(c, steps) * messages.model for c in (self.replay.computed, self.replay.pulls))
        return {"bytes_sent": up / messages.workers, "server_bytes_sent": down}


def _padded(x: np.ndarray, *more: int) -> np.ndarray:
    """`x` with so many zeros at the end of each axis; itself where there are none, as in most groups."""
    return np.pad(x, [(0, number) for number in more]) if any(more) else x


Replay = Steps | Waves | Arrivals


def replay(
    line: schedule.Barrier | schedule.Waves | schedule.Schedule,
    batches: schedule.Batches | None = None,
    partner: np.ndarray | None = None,
    local_steps: int = 1,
) -> Replay:
    """The replay of a clock's timeline. `batches`, `partner`, `local_steps`: of arrivals."""
    if isinstance(line, schedule.Schedule):
        return Arrivals(line, schedule.batches(line) if batches is None else batches, partner, local_steps)
    return Waves(line) if isinstance(line, schedule.Waves) else Steps(line)


def _after(counted: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """What is counted after so many steps; nothing at step 0."""
    after: np.ndarray = np.concatenate([np.zeros(1, counted.dtype), counted])[steps]
    return after


def _at_records(of_stretches: np.ndarray, records: int) -> np.ndarray:
    """[records]: what each stretch before a record had; of a shorter run the last stands in for those that it lacks."""
    return np.concatenate([[0.0], of_stretches])[np.minimum(np.arange(records), len(of_stretches))]
