"""A sweep: the runs of a grid of settings, one directory each, one table and one plot of them all."""
