"""Stories in, two files out: `token_mapping.json` and `tokenized_dataset/`. Never imports torch."""
