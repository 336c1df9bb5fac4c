"""No server: neighbours on a graph."""
