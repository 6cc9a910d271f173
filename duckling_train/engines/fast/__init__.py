"""The fast engine: the same training as the reference engine's, by a step of its own, for one run or many at once."""
