"""From text to compact ids: GPT-2's tokens, the encoders, the mapping, and DucklingTokenizer."""
