"""Stories in, two files out: `token_mapping.json` and `tokenized_dataset/`. Never imports torch.

The names below are imported when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from duckling_data.base.lazy import lazy_names

if TYPE_CHECKING:
    from duckling_data.base.errors import DucklingError, InputError
    from duckling_data.corpus.demo.generator import demo_stories
    from duckling_data.rows.read import Rows, open_rows
    from duckling_data.tokens.mapping import TokenMapping, read_mapping
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    __version__: str

__all__ = [
    "DucklingError",
    "DucklingTokenizer",
    "InputError",
    "Rows",
    "TokenMapping",
    "demo_stories",
    "open_rows",
    "read_mapping",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DucklingError": "duckling_data.base.errors",
        "DucklingTokenizer": "duckling_data.tokens.tokenizer",
        "InputError": "duckling_data.base.errors",
        "Rows": "duckling_data.rows.read",
        "TokenMapping": "duckling_data.tokens.mapping",
        "demo_stories": "duckling_data.corpus.demo",
        "open_rows": "duckling_data.rows.read",
        "read_mapping": "duckling_data.tokens.mapping",
    },
)
