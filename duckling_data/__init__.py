"""Stories in, two files out: `token_mapping.json` and `tokenized_dataset/`. Never imports torch.

Importing this package makes `DucklingTokenizer` known to transformers' `AutoTokenizer`, and so to `pipeline`. Telling
it at once would import torch, so it is told as soon as somebody else imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_TOKENIZER = "transformers.models.auto.tokenization_auto"
"""The module of `AutoTokenizer` and of the classes it knows."""


class _RegisterAfterImport:
    """A finder for AUTO_TOKENIZER alone: what the finders after it find, with the registration as its last line.

    It stays in `sys.meta_path`: should the module be loaded anew, it is registered there anew.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's spec, or None for any other module."""
        if name != AUTO_TOKENIZER:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next((spec for finder in after if (spec := finder.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            _register(module)

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]  # this spec's own loader
        return spec


def _register(auto_tokenizer: ModuleType) -> None:
    """Make `DucklingTokenizer` known to the imported module AUTO_TOKENIZER."""
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    class DucklingConfig(auto_tokenizer.PreTrainedConfig):  # type: ignore[misc, name-defined]
        """What `register` files a tokenizer under. No model has it: Duckling's models are GPT-2s."""

    auto_tokenizer.AutoTokenizer.register(DucklingConfig, tokenizer_class=DucklingTokenizer, exist_ok=True)


sys.meta_path.insert(0, _RegisterAfterImport())
if AUTO_TOKENIZER in sys.modules:
    _register(sys.modules[AUTO_TOKENIZER])
