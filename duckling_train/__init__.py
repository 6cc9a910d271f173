"""Two files in, a recorded run out: the Duckling II model trained on the packed rows."""
