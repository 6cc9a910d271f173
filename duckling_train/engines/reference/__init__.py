"""The reference engine: the Hugging Face Trainer, bitwise the seed's notebook."""
