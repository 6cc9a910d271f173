"""A run's report: one HTML file that shows how the dead rows moved, and what the plots of a run are drawn from."""
