"""Small random pipelines of the Stable Diffusion family, saved in diffusers' layout."""

from string import ascii_lowercase

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)


def clip_tokenizer(length=77):
    """One token a letter."""
    words = ["<|startoftext|>", "<|endoftext|>"]
    letters = [*ascii_lowercase, ","]
    vocabulary = words + letters + [letter + "</w>" for letter in letters]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)}, merges=[],
        model_max_length=length,
    )  # fmt: skip


def _text_config(tokenizer):
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def _unet(**changes):
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2, **changes,
    )  # fmt: skip


def _vae():
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _schedule(prediction):
    return {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": prediction,
    }  # fmt: skip


def stable_diffusion(folder, prediction="epsilon"):
    """Stable Diffusion 1.x, or with "v_prediction" 2.x, of 32x32 pictures."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    StableDiffusionPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(tokenizer)), tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=16), scheduler=DDIMScheduler(**_schedule(prediction)),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def stable_diffusion_xl(folder):
    """SDXL of 32x32 pictures."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    unet = _unet(
        cross_attention_dim=32, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(tokenizer)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer_2=tokenizer, unet=unet, scheduler=EulerDiscreteScheduler(**_schedule("epsilon")),
        add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder
