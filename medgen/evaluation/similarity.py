"""How alike two images are: MS-SSIM, MINIM's flat SSIM, and LPIPS from weights of one's own.

Plain functions of pairs of tensors in [0, 1]; knows no table and no prompt.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medgen.errors import BadInput

Comparison = Callable[[Tensor, Tensor], Tensor]


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """MS-SSIM of each pair, (n,) in [0, 1], of two (n, c, H, H) float tensors in [0, 1].

    Source: torchmetrics with its published constants; 1 for equal images.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    similarity = multiscale_structural_similarity_index_measure(
        first, second, data_range=1.0, reduction="none"
    )
    return torch.atleast_1d(similarity)


def minim_ssim(first: Tensor, second: Tensor) -> Tensor:
    """SSIM with a flat 7-pixel window, (n,), as MINIM's metrics.py has it from scikit-image."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(
        first, second, gaussian_kernel=False, kernel_size=7, data_range=1.0, reduction="none"
    )
    return torch.atleast_1d(similarity)


def load_lpips(backbone: str | Path | None = None) -> Comparison:
    """LPIPS v0.1 on AlexNet: a function of two (n, c, H, H) tensors in [0, 1] to (n,) distances.

    The linear layers come with the `lpips` package; the ImageNet AlexNet does not.

    Args:
        backbone: Folder with `alexnet.safetensors`; torch's hub cache when None.

    Raises:
        BadInput: AlexNet's weights cannot be had.
    """
    import lpips
    from torchvision.models import AlexNet_Weights

    if backbone is None:
        weights = AlexNet_Weights.IMAGENET1K_V1
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        # Never fetched unasked: an evaluation without a network must not wait for one.
        if not cached.is_file():
            raise BadInput(
                f"LPIPS needs AlexNet's ImageNet weights, and torch's hub cache has no "
                f"{cached.name}: fetch it once with torchvision.models.alexnet(weights='DEFAULT'), "
                "or give a folder with alexnet.safetensors"
            )
        state = weights.get_state_dict(progress=False, check_hash=True)
    else:
        file = Path(backbone) / "alexnet.safetensors"
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise BadInput(
                f"no AlexNet for LPIPS at {file}: save torchvision's alexnet weights there as "
                "safetensors"
            ) from error
    # The package announces itself on standard output and warns of torchvision's old arguments.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own: dict[str, Any] = model.net.state_dict()
    try:
        model.net.load_state_dict({name: state[_torchvision_name(name)] for name in own})
    except (KeyError, RuntimeError) as error:
        raise BadInput(
            f"the AlexNet for LPIPS in {backbone} has other layers than torchvision's: "
            "save torchvision's alexnet weights under their own names"
        ) from error
    model.eval().requires_grad_(False)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        return torch.atleast_1d(model(first, second, normalize=True).flatten())

    return distance


def _torchvision_name(name: str) -> str:
    """AlexNet's own name of a layer: `slice2.3.weight` is its `features.3.weight`."""
    return "features." + name.split(".", 1)[1]
