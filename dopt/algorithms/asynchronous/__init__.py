"""Gradients of old models: behind a server, or with explicit delays."""
