"""A run's directory: its layout, checkpoints, training, resuming, reading and verifying."""
