"""stdin to stderr, with the log of JAX's coordination of processes put into one line. `dopt.devices.hosts` runs it, by its path.

A line of these logs looks like `F1124 19:28:31.771889   30955 client.h:80] Terminating process because ...`; it may have
lines below it that look like nothing, so all is left out until something else speaks. gloo, which carries messages between
CPUs, says in its own way that a peer does not answer, or throws where nobody can catch it.
"""

import re
import signal
import sys

LOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+):\d+\] ")
COORDINATION = ("client.h", "coordination_", "distributed_", "preemption_")
UNREACHABLE, THROWN = "[external/gloo/", "terminate called after throwing an instance of 'gloo::"
DEAD = "dopt: another process of this run died or cannot be reached, so this one ends; start all of them again"


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for whom we listen to; we end with him
        signal.signal(number, signal.SIG_IGN)
    quiet = dead = told = False
    for line in sys.stdin:
        log = LOG.match(line)
        if log:
            quiet = log[2].startswith(COORDINATION)
            dead |= quiet and log[1] == "F"
        elif line.startswith(UNREACHABLE):
            continue
        elif line.startswith(THROWN):
            quiet = dead = True
        elif line.startswith(("dopt: ", "Traceback")):
            quiet = False
        told |= line.startswith("dopt: ")  # who was told to end, or has found it out, has said so
        if not quiet:
            sys.stderr.write(line)
            sys.stderr.flush()
    if dead and not told:
        print(DEAD, file=sys.stderr)


if __name__ == "__main__":
    main()
