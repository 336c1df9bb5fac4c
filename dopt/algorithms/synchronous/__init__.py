"""A barrier every step, or every H steps."""
