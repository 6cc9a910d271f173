"""What the tests and the scripts share: nothing else in `tests/` or `scripts/` is imported by another file."""

HANG = 600
"""Seconds after which a process, thread or connection that a test waits for has hung. It measures no speed: a loaded
machine without native bf16 takes a small part of it."""
