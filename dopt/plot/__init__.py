"""Pictures of sweeps, and what they are made of."""
