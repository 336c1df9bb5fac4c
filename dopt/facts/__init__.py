"""All that follows from resolved runs on the host: made once for each distinct value, handed down, and not asked for again."""

from dopt.facts.facts import Facts, facts_of
from dopt.facts.problem import make_problem

__all__ = ["Facts", "facts_of", "make_problem"]
