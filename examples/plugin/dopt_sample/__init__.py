"""Plug-ins for dopt; importing the package registers them."""

from dopt_sample import compressors, methods, topologies

__all__ = ["compressors", "methods", "topologies"]
