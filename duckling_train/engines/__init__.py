"""The engines that train: `reference` is the Hugging Face Trainer, exactly as the seed runs it."""
