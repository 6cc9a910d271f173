"""The locked-down Duckling II model: the seed's GPT2Config, and where it runs."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig, named
from duckling_train.precision import RECIPES

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel

SIZES = ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions", "n_inner")


def model_config(config: TrainConfig) -> GPT2Config:
    """Return the seed's model configuration in `config`'s sizes and with its activation, dropout and spread.

    GPT-2's begin and end tokens (50256) are unset: they are outside the compact vocabulary, and `generate` would warn.
    """
    from transformers import GPT2Config

    sizes: dict[str, Any] = {name: getattr(config, name) for name in SIZES}
    fixed: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
    fixed |= {"activation_function": config.activation, "initializer_range": config.init_std}
    fixed |= {"layer_norm_epsilon": 1e-5, "use_cache": False}
    fixed |= {"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": config.tied}
    return GPT2Config(**sizes, **fixed)


def build_model(config: TrainConfig) -> GPT2LMHeadModel:
    """Return a fresh model on the CPU, its float32 draw rounded to the nearest value in the dtype of the precision.

    The weights are drawn from torch's global random stream: seed it first.
    """
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(model_config(config))
    set_loss(model)
    torch.nn.Module.to(model, RECIPES[config.precision].weights)
    return model


def set_loss(model: GPT2LMHeadModel) -> None:
    """Set the loss that transformers falls back to for this class, with a warning unless it is set.

    Setting `loss_type` instead would change a run: the Trainer would divide a batch's summed loss by 511 predictions a
    row, not by 512.
    """
    from transformers.loss.loss_utils import ForCausalLMLoss

    model.loss_function = ForCausalLMLoss


def story_mask(positions: npt.NDArray[Any]) -> torch.Tensor:
    """Return what each token of a row attends to, as a GPT2Model takes it: bool[rows, 1, context, context].

    `positions` (rows, context) are the tokens' indices in their own stories. A token, of the third dimension, attends
    to the tokens of its own story in the row, of the fourth, up to itself. For the attention `sdpa`, this model's own.
    """
    return mask_of(torch.from_numpy(positions == 0))


def mask_of(starts: torch.Tensor) -> torch.Tensor:
    """Return `story_mask` of which tokens start a story: bool[rows, context]."""
    story = torch.cumsum(starts, 1)
    return torch.tril(story[:, None, :, None] == story[:, None, None, :])


def resolve_device(device: str) -> str:
    """Return cpu, cuda or mps for `device`, where auto takes the first of cuda, mps, cpu that is there.

    Raises InputError when the device asked for is absent.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, here in present.items() if here)
    if not present[device]:
        absent = f"but torch {torch.__version__} finds none here; use auto or cpu"
        raise InputError(f"{named('device')} is {device}, {absent}")
    return device


def device_name(device: str) -> str:
    """Return the hardware's name for `summary.json`."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} {'CPU' if device == 'cpu' else 'MPS'}"
