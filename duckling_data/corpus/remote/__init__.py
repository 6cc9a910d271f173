"""Files of a store that a URL names, through fsspec: listed, fetched when they are read, removed afterwards."""
