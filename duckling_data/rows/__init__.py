"""The rows on disk: a directory that `datasets.load_from_disk` opens, written and read."""
