"""The stages of the pipeline: count, build-vocab, pack and report."""
