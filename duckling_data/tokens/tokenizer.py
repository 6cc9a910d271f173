"""DucklingTokenizer: text to compact ids and back, as a tokenizer of transformers.

It maps each id of the base, GPT-2, to its compact id; an id without one becomes `unk_id` or, under the policy
`decompose`, is split back along the merges that made it. `token_mapping.json` is its whole vocabulary file, beside
which another base has its own, so a saved folder is complete and opens without a network, with
`DucklingTokenizer.from_pretrained(folder)` or, once this class is imported, `AutoTokenizer.from_pretrained`.
The seed's class of the same name reads the same file and gives the same ids and text.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import transformers
from tokenizers import decoders
from transformers import PythonBackend

from duckling_data.base.errors import InputError
from duckling_data.tokens.base import BASE_FILE, BaseTokenizer
from duckling_data.tokens.encoders import Encoder, load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, check_mapping, mapping_bytes, open_mapping
from duckling_data.tokens.tokenizer_file import read_base

UNKNOWN = "⟨unk⟩"
"""How an id that is reserved for unknown tokens is shown to a person."""


class DucklingTokenizer(PythonBackend):
    """A transformers tokenizer over the compact vocabulary; all its ids are compact ids, the model's.

    `mapping` is a mapping or the path of its file; `base` its base tokenizer or the path of its file, by default GPT-2
    or what lies beside the mapping's file; `encoder` one of `encoders.ENCODERS`; the rest is transformers' own.
    Nothing is added to a text: there is no bos token, and no pad token until the user sets one (any live token, or
    `tokenizer.pad_token = tokenizer.eos_token` where `<|endoftext|>` is live). A compact id that no token has, dead or
    reserved for unknowns, has a name for `convert_ids_to_tokens` alone: no text encodes to a dead id, and `decode`
    skips them all; with `show_unknown=True` it writes the reserved one as `⟨unk⟩`. Raises InputError for a mapping that
    fails `check_mapping`.

    >>> tokenizer = DucklingTokenizer("artifacts/token_mapping.json")
    >>> tokenizer.decode(tokenizer.encode("One day, the little girl"))
    'One day, the little girl'
    """

    vocab_files_names = {"mapping": MAPPING_FILE, "base": BASE_FILE}  # noqa: RUF012  # transformers' own class attribute
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self, mapping: Mapping[str, Any] | str | os.PathLike[str] | None = None, *, encoder: str | None = None,
        base: BaseTokenizer | str | os.PathLike[str] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if mapping is None:
            raise InputError(f"no {MAPPING_FILE} to make a tokenizer of; `duckling-data build-vocab` makes it")
        if isinstance(base, str | os.PathLike):
            base = read_base(Path(base))
        if isinstance(mapping, str | os.PathLike):
            self.mapping, self.base = open_mapping(mapping, base)
        else:
            self.base = base or GPT2
            self.mapping = check_mapping(mapping, "the mapping", self.base)
        self.unk_id = self.mapping["unk_id"]
        self._encoder_kind = encoder
        self._live = {int(gpt2): compact for gpt2, compact in self.mapping["gpt2_to_compact"].items()}
        self._tokens = {compact: self.base.strings[token] for token, compact in self._live.items()}
        nameless = set(range(self.mapping["total_vocab"])) - self._tokens.keys()
        self._silent = {f"<|compact {compact}|>": compact for compact in sorted(nameless)}
        self._tokens |= {compact: name for name, compact in self._silent.items()}
        self._ids: dict[str, int] = {token: compact for compact, token in sorted(self._tokens.items())}
        if self.base.eos_id in self._live:
            kwargs.setdefault("eos_token", self.base.eos_text)
        for loaded_from in ("is_local", "local_files_only"):  # else save_pretrained would write where it was loaded
            kwargs.pop(loaded_from, None)
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def from_mapping(cls, path: str | os.PathLike[str]) -> DucklingTokenizer:
        """Return the tokenizer of a mapping file. Raises InputError for a bad one."""
        return cls(path)

    @classmethod
    def for_model(
        cls, mapping: Mapping[str, Any] | str | os.PathLike[str], context: int, base: BaseTokenizer | None = None
    ) -> DucklingTokenizer:
        """Return the tokenizer to save with a model of `context` tokens: with that limit, and ready for batches.

        It pads on the left, as `generate` needs it, with the highest id that no token has, which `decode` skips; where
        every id has a token, with the one that ends a text, if that is live. Raises InputError for a bad mapping.
        """
        tokenizer = cls(mapping, base=base, model_max_length=context, padding_side="left")
        tokenizer.pad_token = next(reversed(tokenizer._silent), tokenizer.eos_token)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """The rows of the embedding: live and dead ids together."""
        return self.mapping["total_vocab"]

    @property
    def live_token_ids(self) -> range:
        """The live compact ids, 0 to live_tokens - 1 (the mapping's key of this name holds their GPT-2 ids)."""
        return range(self.mapping["live_tokens"])

    @property
    def dead_token_ids(self) -> set[int]:
        """The dead compact ids, live_tokens to total_vocab - 1: the seed's `dead_token_ids`."""
        return set(range(self.mapping["live_tokens"], self.mapping["total_vocab"]))

    def get_vocab(self) -> dict[str, int]:
        """Return every token's string, in the byte alphabet, with its compact id, and what the user added."""
        return {**self._ids, **self._added_tokens_encoder}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the mapping file, byte for byte as `build-vocab` does, and another base's. Returns the paths."""
        contents = {MAPPING_FILE: mapping_bytes(self.mapping), BASE_FILE: self.base.content}
        written = []
        for name, content in contents.items():
            if content is not None:
                path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{name}"
                path.write_bytes(content)
                written.append(str(path))
        return tuple(written)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the tokens' text, as `GPT2TokenizerFast` joins it; names of ids that no token has are left out."""
        text: str = decoders.ByteLevel().decode([token for token in tokens if token not in self._silent])
        return text

    def tokenize(self, text: str, *args: Any, **kwargs: Any) -> list[str]:
        """Return the text's base tokens as strings, live or not; split as far as `decompose` splits them."""
        return super().tokenize(text, *args, **kwargs) if self._added_tokens_encoder else self._tokenize(text)

    def _add_tokens(self, new_tokens: list[Any], special_tokens: bool = False) -> int:
        # A token of the vocabulary that is made special (a pad token, say) must not cut words out of texts: with "."
        # for padding, "..." would no longer be one token.
        beyond = [token for token in new_tokens if str(token) not in self._ids]
        added: int = super()._add_tokens(beyond, special_tokens)
        return added

    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("return_offsets_mapping"):  # the library would leave the key out and say nothing
            raise InputError(
                "return_offsets_mapping=True: this tokenizer has no character offsets; decode the ids one by one, or "
                "leave it out."
            )
        return super()._encode_plus(*args, **kwargs)

    def _tokenize(self, text: str, **_kwargs: Any) -> list[str]:
        ids = self._encoder.encode(text)
        if self.mapping.get("unk_policy") == DECOMPOSE:
            ids = [piece for token in ids for piece in self.base.split(token, self._live)]
        return [self.base.strings[token] for token in ids]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self.unk_id)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.get(index, "")  # an id beyond the vocabulary is skipped too, as the seed does

    def _decode(self, token_ids: int | list[int], *args: Any, show_unknown: bool = False, **kwargs: Any) -> str:
        decode: Any = super()._decode
        if not show_unknown or self._tokens[self.unk_id] not in self._silent:
            return str(decode(token_ids, *args, **kwargs))
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        cuts = [-1, *(place for place, compact in enumerate(ids) if compact == self.unk_id), len(ids)]
        return UNKNOWN.join(decode(ids[cut + 1 : end], *args, **kwargs) for cut, end in itertools.pairwise(cuts))

    @property
    def _encoder(self) -> Encoder:
        if self not in _ENCODERS:
            _ENCODERS[self] = load_encoder(self._encoder_kind, self.base)
        return _ENCODERS[self]


_ENCODERS: WeakKeyDictionary[DucklingTokenizer, Encoder] = WeakKeyDictionary()
"""The encoder of each tokenizer that was used. It is no attribute: a copy in another process or thread makes its own,
and datasets, which hashes a tokenizer's attributes, finds again what `map` made with it."""

# AutoTokenizer, and so `pipeline`, looks for a saved tokenizer's class as an attribute of the module `transformers`.
# The library replaces that module by a new one while it imports others, so the attribute is put on the module's type:
# it is found whichever is imported first. `AutoTokenizer.register` would import torch.
_lazy_module = type(transformers)
setattr(transformers if _lazy_module is ModuleType else _lazy_module, DucklingTokenizer.__name__, DucklingTokenizer)
