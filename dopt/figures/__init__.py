"""Figures: what a picture needs to be run, its drawing, and the claims that it must show."""

from dopt.figures.claims import Claim, over

__all__ = ["Claim", "over"]
