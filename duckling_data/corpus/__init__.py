"""Where stories come from: splits, sources, file readers, the hub, and the built-in demo stories."""
