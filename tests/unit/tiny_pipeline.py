"""An untrained pipeline of the shipped kind, small enough to run in milliseconds."""


def pipeline(scheduler, channels: int = 2, middle: str | None = None):
    """Same weights each time. `channels`: of the latents; `middle`: kind of the UNet's middle block, None for none."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = {w: i for i, w in enumerate(["<pad>", "<unknown>", "chest", "xray", "normal", "pneumonia"])}
    raw = Tokenizer(models.WordPiece(words, unk_token="<unknown>"))
    raw.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("-", ""), normalizers.Replace(",", " ")]
    )
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=8, pad_token="<pad>", unk_token="<unknown>"
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=6,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
        )
    )
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=channels,
        norm_num_groups=2,
        scaling_factor=1.0,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=middle,
        block_out_channels=(16,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    parts = dict(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
