"""`inspect-embedding`: the embedding of any model, from its safetensors; no code in it is run, no pickle opened."""
