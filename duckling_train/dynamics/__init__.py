"""What is measured of a recorded run: how the rows of W move, and the dead ones above all."""
