"""A hub of the tests' own: its server, a proxy before it, and the small dataset that it serves."""
