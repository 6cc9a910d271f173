"""The stages of the pipeline, in the order that they are made in, each needing those before it at most.

To add a stage, write its file and add its `Stage` to this list.
"""

from __future__ import annotations

from typing import Any

from duckling_data.stages.base import Stage
from duckling_data.stages.count import COUNT
from duckling_data.stages.pack import PACK
from duckling_data.stages.report import REPORT
from duckling_data.stages.tokenizer import TOKENIZER
from duckling_data.stages.vocab import VOCAB

STAGES: tuple[Stage[Any, Any], ...] = (COUNT, VOCAB, PACK, REPORT)
EVERY: tuple[Stage[Any, Any], ...] = (TOKENIZER, *STAGES)
"""With that of another base tokenizer than GPT-2, which comes first."""

NAMES = tuple(stage.name for stage in STAGES)
