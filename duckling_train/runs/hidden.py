"""The final hidden states of a run's model on its validation rows: what `measure` sees of the model's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from duckling_data.base.progress import Reporter
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, POSITION, open_validation
from duckling_train.model import story_mask
from duckling_train.runs.hooks import ROWS_A_BATCH, evaluated_rows
from duckling_train.runs.open import open_plain

Float32 = npt.NDArray[np.float32]


def validation_states(
    run_dir: Path, workspace: Path, config: TrainConfig, expected: str, reporter: Reporter
) -> tuple[Float32, Float32] | None:
    """Return the states after `ln_f` at the predicting positions, float32[positions, width], and the softmax matrix.

    The rows are those that the run evaluates on; None where the workspace holds other ones than those of the payload
    digest `expected`. The model computes in float32. Raises InputError for damaged rows and a damaged model.
    """
    rows = open_validation(workspace, config, read_mapping(workspace / MAPPING_FILE))
    if rows is None or rows.rows.payload_sha256() != expected:
        return None
    model = open_plain(run_dir)[0].float().eval()
    count, states = evaluated_rows(rows, config.eval_rows), []
    with torch.no_grad(), reporter.bar("hidden states", count, "rows") as bar:
        for first in range(0, count, ROWS_A_BATCH):
            batch: list[dict[str, Any]] = [rows[index] for index in range(first, min(first + ROWS_A_BATCH, count))]
            ids = torch.from_numpy(np.stack([row[COLUMN] for row in batch]).astype(np.int64))
            mask = None if rows.positions is None else story_mask(np.stack([row[POSITION] for row in batch]))
            states.append(model.transformer(ids, mask)[:, :-1].flatten(0, 1).numpy())
            bar.update(len(batch))
    return np.concatenate(states), model.lm_head.weight.detach().numpy()
