"""Adapters over a frozen U-Net: LoRA (Hu et al. 2021, arXiv 2106.09685) and QLoRA.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314) keeps the base's linear layers in 4 bits (nf4).
diffusers' own loading in 4 bits wants a GPU; here layers are replaced one by one, which works on a
processor too. Convolutions stay whole and get plain LoRA.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

import torch
from diffusers.training_utils import cast_training_params
from torch import Tensor, nn

from medgen.errors import BadInput


class AdapterSettings(Protocol):
    """What an adapter is made by: "lora" or "qlora", rank, alpha, and which layers."""

    @property
    def method(self) -> str:
        """Names the method; "qlora" puts the base into 4 bits."""
        ...

    @property
    def rank(self) -> int:
        """Rank of each layer's change."""
        ...

    @property
    def alpha(self) -> int:
        """The change is scaled by alpha / rank."""
        ...

    @property
    def targets(self) -> list[str]:
        """Ends of the names of the layers, or regular expressions."""
        ...


def add_adapter(unet: Any, config: AdapterSettings, device: torch.device, dtype: Any) -> None:
    """Freeze a U-Net and give it an adapter whose weights are float32.

    Args:
        unet: diffusers' `UNet2DConditionModel`.
        config: Method, rank, alpha and targets.
        device: Where it will be trained.
        dtype: What the frozen weights are kept in, and what 4-bit layers compute in.

    Raises:
        BadInput: peft or bitsandbytes is missing, or no layer has such a name.
    """
    for package in ("peft", "bitsandbytes") if config.method == "qlora" else ("peft",):
        if importlib.util.find_spec(package) is None:
            raise BadInput(
                f'method: {config.method} needs {package}: pip install "medgen[finetune]"'
            )
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.to(device=device)
    if unet.dtype != dtype:
        unet.to(dtype=dtype)
    if config.method == "qlora":
        _quantize(unet, device, dtype)
    targets = rf"(.*\.)?({'|'.join(config.targets)})"
    adapter = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, init_lora_weights="gaussian", target_modules=targets
    )
    try:
        unet.add_adapter(adapter)
    except ValueError as error:
        reason = str(error).splitlines()[0][:150]
        raise BadInput(f"targets: no layer of the U-Net gets an adapter ({reason})") from error
    cast_training_params(unet, dtype=torch.float32)


def _quantize(unet: nn.Module, device: torch.device, dtype: Any) -> None:
    """Put the linear layers of all attention blocks into 4 bits."""
    import bitsandbytes

    for name, module in list(unet.named_modules()):
        for child, layer in list(module.named_children()):
            if "attentions" not in f"{name}.{child}" or type(layer) is not nn.Linear:
                continue
            small = bitsandbytes.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=dtype,
                quant_type="nf4",
            )
            # On processors with AVX512-BF16 the layer would be packed anew when it is evaluated,
            # which fails for widths that are no multiple of 32 and cannot be trained on after.
            small.support_avx512bf16_for_cpu = False
            small.load_state_dict(layer.state_dict())
            small.requires_grad_(False)
            setattr(module, child, small.to(device))
    # peft looks here for which kind of LoRA layer fits.
    unet.is_loaded_in_4bit = True  # type: ignore[assignment]


def adapter_weights(unet: nn.Module) -> dict[str, Tensor]:
    """The adapter's own weights by name."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(unet)


def load_adapter_weights(unet: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put `adapter_weights` back.

    Raises:
        RuntimeError: They belong to another adapter.
    """
    from peft import set_peft_model_state_dict

    own = adapter_weights(unet)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        raise RuntimeError("the adapter has other layers or another rank")
    set_peft_model_state_dict(unet, weights)
