"""Stories in, two files out: `token_mapping.json` and `tokenized_dataset/`. Never imports torch.

The names below are imported when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from duckling_data.base.lazy import lazy_names

if TYPE_CHECKING:
    from duckling_data.base.errors import DucklingError as DucklingError
    from duckling_data.base.errors import InputError as InputError
    from duckling_data.corpus.demo.generator import demo_stories as demo_stories
    from duckling_data.rows.read import Rows as Rows
    from duckling_data.rows.read import open_rows as open_rows
    from duckling_data.tokens.mapping import TokenMapping as TokenMapping
    from duckling_data.tokens.mapping import read_mapping as read_mapping
    from duckling_data.tokens.tokenizer import DucklingTokenizer as DucklingTokenizer

    __version__: str

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base.errors": ("DucklingError", "InputError"),
        "corpus.demo.generator": ("demo_stories",),
        "rows.read": ("Rows", "open_rows"),
        "tokens.mapping": ("TokenMapping", "read_mapping"),
        "tokens.tokenizer": ("DucklingTokenizer",),
    },
)
