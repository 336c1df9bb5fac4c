"""Sweeps: a file of parameters -> runs -> groups -> slabs -> a store, and views of it."""
