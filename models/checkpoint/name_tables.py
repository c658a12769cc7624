"""What each format calls every weight; the tables are read in both directions.

In a template, ``#`` stands for a number and a final ``*`` for the rest of the name, the same
on both sides. The first rule that fits a name holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from m2f.config import Convention


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a table.

    Attributes:
        ours: Template of our name.
        theirs: Template of the file's name; three where the file has query, key and value
            apart, which are our rows in that order.
        is_reordered: The four pixels that a Swin patch merging joins come in another order.
    """

    ours: str
    theirs: tuple[str, ...]
    is_reordered: bool = False


def _rule(ours: str, *theirs: str, is_reordered: bool = False) -> Rule:
    return Rule(ours, theirs, is_reordered)


_HEAD = "sem_seg_head.pixel_decoder."
_ENCODER = _HEAD + "transformer.encoder.layers.#."
_PREDICTOR = "sem_seg_head.predictor."

_OFFICIAL = (
    _rule("backbone.*", "backbone.*"),
    _rule("pixel_decoder.mask_features.*", _HEAD + "mask_features.*"),
    _rule("transformer_decoder.query_feat.*", _PREDICTOR + "query_feat.*"),
    _rule("transformer_decoder.query_embed.*", _PREDICTOR + "query_embed.*"),
    _rule("transformer_decoder.level_embed.*", _PREDICTOR + "level_embed.*"),
    _rule("transformer_decoder.norm.*", _PREDICTOR + "decoder_norm.*"),
    _rule("transformer_decoder.class_embed.*", _PREDICTOR + "class_embed.*"),
    _rule("transformer_decoder.mask_embed.#.*", _PREDICTOR + "mask_embed.layers.#.*"),
    *(
        _rule(f"transformer_decoder.layers.#.{ours}.*", f"{_PREDICTOR}transformer_{theirs}.*")
        for ours, theirs in (
            ("cross_attn", "cross_attention_layers.#.multihead_attn"),
            ("cross_attn_norm", "cross_attention_layers.#.norm"),
            ("self_attn", "self_attention_layers.#.self_attn"),
            ("self_attn_norm", "self_attention_layers.#.norm"),
            ("linear1", "ffn_layers.#.linear1"),
            ("linear2", "ffn_layers.#.linear2"),
            ("ffn_norm", "ffn_layers.#.norm"),
        )
    ),
)
_OFFICIAL_MSDEFORM = (
    _rule("pixel_decoder.level_embed", _HEAD + "transformer.level_embed"),
    _rule("pixel_decoder.input_proj.*", _HEAD + "input_proj.*"),
    _rule("pixel_decoder.layers.#.attn.*", _ENCODER + "self_attn.*"),
    _rule("pixel_decoder.layers.#.*", _ENCODER + "*"),
    _rule("pixel_decoder.lateral.*", _HEAD + "adapter_1.*"),
    _rule("pixel_decoder.output.*", _HEAD + "layer_1.*"),
)
_OFFICIAL_FPN = (
    *(_rule(f"pixel_decoder.lateral.{i}.*", f"{_HEAD}adapter_{i + 1}.*") for i in range(3)),
    *(_rule(f"pixel_decoder.output.{i}.*", f"{_HEAD}layer_{i + 1}.*") for i in range(4)),
)

_STEM = "model.pixel_level_module."
_HF_BACKBONE = _STEM + "encoder."
_HF_SWIN = _HF_BACKBONE + "encoder.layers.#."
_HF_PIXEL = _STEM + "decoder."
_HF_LAYER = _HF_PIXEL + "encoder.layers.#."
_HF_QUERIES = "model.transformer_module."
_HF_DECODER = _HF_QUERIES + "decoder.layers.#."

_HF = (
    # ResNet
    _rule("backbone.stem.conv1.weight", _HF_BACKBONE + "embedder.embedder.convolution.weight"),
    _rule("backbone.stem.conv1.norm.*", _HF_BACKBONE + "embedder.embedder.normalization.*"),
    *(
        _rule(
            f"backbone.res{stage + 2}.#.{ours}.{part}",
            f"{_HF_BACKBONE}encoder.stages.{stage}.layers.#.{theirs}.{their_part}",
        )
        for stage in range(4)
        for ours, theirs in (
            ("conv1", "layer.0"),
            ("conv2", "layer.1"),
            ("conv3", "layer.2"),
            ("shortcut", "shortcut"),
        )
        for part, their_part in (
            ("weight", "convolution.weight"),
            ("norm.*", "normalization.*"),
        )
    ),
    # Swin
    _rule(
        "backbone.patch_embed.proj.*", _HF_BACKBONE + "embeddings.patch_embeddings.projection.*"
    ),
    _rule("backbone.patch_embed.norm.*", _HF_BACKBONE + "embeddings.norm.*"),
    _rule(
        "backbone.layers.#.blocks.#.attn.qkv.*",
        *(f"{_HF_SWIN}blocks.#.attention.self.{x}.*" for x in ("query", "key", "value")),
    ),
    *(
        _rule(f"backbone.layers.#.blocks.#.{ours}", f"{_HF_SWIN}blocks.#.{theirs}")
        for ours, theirs in (
            ("norm1.*", "layernorm_before.*"),
            ("norm2.*", "layernorm_after.*"),
            (
                "attn.relative_position_bias_table",
                "attention.self.relative_position_bias_table",
            ),
            ("attn.proj.*", "attention.output.dense.*"),
            ("mlp.fc1.*", "intermediate.dense.*"),
            ("mlp.fc2.*", "output.dense.*"),
        )
    ),
    _rule("backbone.layers.#.downsample.*", _HF_SWIN + "downsample.*"),
    *(
        _rule(f"backbone.norm{s}.*", f"{_HF_BACKBONE}hidden_states_norms.stage{s + 1}.*")
        for s in range(4)
    ),
    # pixel decoder
    _rule("pixel_decoder.level_embed", _HF_PIXEL + "level_embed"),
    _rule("pixel_decoder.input_proj.*", _HF_PIXEL + "input_projections.*"),
    _rule("pixel_decoder.layers.#.attn.*", _HF_LAYER + "self_attn.*"),
    _rule("pixel_decoder.layers.#.norm1.*", _HF_LAYER + "self_attn_layer_norm.*"),
    _rule("pixel_decoder.layers.#.norm2.*", _HF_LAYER + "final_layer_norm.*"),
    _rule("pixel_decoder.layers.#.linear1.*", _HF_LAYER + "fc1.*"),
    _rule("pixel_decoder.layers.#.linear2.*", _HF_LAYER + "fc2.*"),
    _rule("pixel_decoder.lateral.weight", _HF_PIXEL + "adapter_1.0.weight"),
    _rule("pixel_decoder.lateral.norm.*", _HF_PIXEL + "adapter_1.1.*"),
    _rule("pixel_decoder.output.weight", _HF_PIXEL + "layer_1.0.weight"),
    _rule("pixel_decoder.output.norm.*", _HF_PIXEL + "layer_1.1.*"),
    _rule("pixel_decoder.mask_features.*", _HF_PIXEL + "mask_projection.*"),
    # transformer decoder
    _rule("transformer_decoder.query_feat.*", _HF_QUERIES + "queries_features.*"),
    _rule("transformer_decoder.query_embed.*", _HF_QUERIES + "queries_embedder.*"),
    _rule("transformer_decoder.level_embed.*", _HF_QUERIES + "level_embed.*"),
    _rule("transformer_decoder.layers.#.cross_attn.*", _HF_DECODER + "cross_attn.*"),
    _rule(
        "transformer_decoder.layers.#.cross_attn_norm.*",
        _HF_DECODER + "cross_attn_layer_norm.*",
    ),
    _rule(
        "transformer_decoder.layers.#.self_attn.in_proj_*",
        *(f"{_HF_DECODER}self_attn.{x}_proj.*" for x in "qkv"),
    ),
    _rule(
        "transformer_decoder.layers.#.self_attn.out_proj.*",
        _HF_DECODER + "self_attn.out_proj.*",
    ),
    _rule(
        "transformer_decoder.layers.#.self_attn_norm.*", _HF_DECODER + "self_attn_layer_norm.*"
    ),
    _rule("transformer_decoder.layers.#.linear1.*", _HF_DECODER + "fc1.*"),
    _rule("transformer_decoder.layers.#.linear2.*", _HF_DECODER + "fc2.*"),
    _rule("transformer_decoder.layers.#.ffn_norm.*", _HF_DECODER + "final_layer_norm.*"),
    _rule("transformer_decoder.norm.*", _HF_QUERIES + "decoder.layernorm.*"),
    _rule("transformer_decoder.class_embed.*", "class_predictor.*"),
    _rule(
        "transformer_decoder.mask_embed.#.*",
        _HF_QUERIES + "decoder.mask_predictor.mask_embedder.#.0.*",
    ),
)

_PANOPTIC = "panoptic_head."
_MM_SWIN = "backbone.stages.#.blocks.#."
_MM_PIXEL = _PANOPTIC + "pixel_decoder."
_MM_LAYER = _MM_PIXEL + "encoder.layers.#."
_MM_DECODER = _PANOPTIC + "transformer_decoder.layers.#."

_MMDET = (
    # ResNet
    _rule("backbone.stem.conv1.weight", "backbone.conv1.weight"),
    _rule("backbone.stem.conv1.norm.*", "backbone.bn1.*"),
    *(
        _rule(f"backbone.res{stage + 1}.#.{ours}", f"backbone.layer{stage}.#.{theirs}")
        for stage in range(1, 5)
        for ours, theirs in (
            ("conv1.weight", "conv1.weight"),
            ("conv1.norm.*", "bn1.*"),
            ("conv2.weight", "conv2.weight"),
            ("conv2.norm.*", "bn2.*"),
            ("conv3.weight", "conv3.weight"),
            ("conv3.norm.*", "bn3.*"),
            ("shortcut.weight", "downsample.0.weight"),
            ("shortcut.norm.*", "downsample.1.*"),
        )
    ),
    # Swin
    _rule("backbone.patch_embed.proj.*", "backbone.patch_embed.projection.*"),
    _rule("backbone.patch_embed.norm.*", "backbone.patch_embed.norm.*"),
    _rule("backbone.layers.#.blocks.#.norm1.*", _MM_SWIN + "norm1.*"),
    _rule("backbone.layers.#.blocks.#.norm2.*", _MM_SWIN + "norm2.*"),
    _rule("backbone.layers.#.blocks.#.attn.*", _MM_SWIN + "attn.w_msa.*"),
    _rule("backbone.layers.#.blocks.#.mlp.fc1.*", _MM_SWIN + "ffn.layers.0.0.*"),
    _rule("backbone.layers.#.blocks.#.mlp.fc2.*", _MM_SWIN + "ffn.layers.1.*"),
    _rule(
        "backbone.layers.#.downsample.*", "backbone.stages.#.downsample.*", is_reordered=True
    ),
    *(_rule(f"backbone.norm{s}.*", f"backbone.norm{s}.*") for s in range(4)),
    # pixel decoder
    _rule("pixel_decoder.level_embed", _MM_PIXEL + "level_encoding.weight"),
    _rule("pixel_decoder.input_proj.#.0.*", _MM_PIXEL + "input_convs.#.conv.*"),
    _rule("pixel_decoder.input_proj.#.1.*", _MM_PIXEL + "input_convs.#.gn.*"),
    _rule("pixel_decoder.layers.#.attn.*", _MM_LAYER + "self_attn.*"),
    _rule("pixel_decoder.layers.#.norm1.*", _MM_LAYER + "norms.0.*"),
    _rule("pixel_decoder.layers.#.norm2.*", _MM_LAYER + "norms.1.*"),
    _rule("pixel_decoder.layers.#.linear1.*", _MM_LAYER + "ffn.layers.0.0.*"),
    _rule("pixel_decoder.layers.#.linear2.*", _MM_LAYER + "ffn.layers.1.*"),
    _rule("pixel_decoder.lateral.weight", _MM_PIXEL + "lateral_convs.0.conv.weight"),
    _rule("pixel_decoder.lateral.norm.*", _MM_PIXEL + "lateral_convs.0.gn.*"),
    _rule("pixel_decoder.output.weight", _MM_PIXEL + "output_convs.0.conv.weight"),
    _rule("pixel_decoder.output.norm.*", _MM_PIXEL + "output_convs.0.gn.*"),
    _rule("pixel_decoder.mask_features.*", _MM_PIXEL + "mask_feature.*"),
    # transformer decoder
    _rule("transformer_decoder.query_feat.*", _PANOPTIC + "query_feat.*"),
    _rule("transformer_decoder.query_embed.*", _PANOPTIC + "query_embed.*"),
    _rule("transformer_decoder.level_embed.*", _PANOPTIC + "level_embed.*"),
    _rule("transformer_decoder.layers.#.cross_attn.*", _MM_DECODER + "cross_attn.attn.*"),
    _rule("transformer_decoder.layers.#.cross_attn_norm.*", _MM_DECODER + "norms.0.*"),
    _rule("transformer_decoder.layers.#.self_attn.*", _MM_DECODER + "self_attn.attn.*"),
    _rule("transformer_decoder.layers.#.self_attn_norm.*", _MM_DECODER + "norms.1.*"),
    _rule("transformer_decoder.layers.#.linear1.*", _MM_DECODER + "ffn.layers.0.0.*"),
    _rule("transformer_decoder.layers.#.linear2.*", _MM_DECODER + "ffn.layers.1.*"),
    _rule("transformer_decoder.layers.#.ffn_norm.*", _MM_DECODER + "norms.2.*"),
    _rule("transformer_decoder.norm.*", _PANOPTIC + "transformer_decoder.post_norm.*"),
    _rule("transformer_decoder.class_embed.*", _PANOPTIC + "cls_embed.*"),
    *(
        _rule(f"transformer_decoder.mask_embed.{i}.*", f"{_PANOPTIC}mask_embed.{2 * i}.*")
        for i in range(3)
    ),
)

RULES: dict[tuple[Convention, str], tuple[Rule, ...]] = {
    ("official", "msdeform"): _OFFICIAL + _OFFICIAL_MSDEFORM,
    ("official", "fpn"): _OFFICIAL + _OFFICIAL_FPN,
    ("hf", "msdeform"): _HF,
    ("mmdet", "msdeform"): _MMDET,
}
"""By format and kind of pixel decoder; only the official code has a plain pyramid."""

OLDER: dict[Convention, tuple[tuple[str, str], ...]] = {
    "official": (
        # Released files say "static_query"; the first ones had no "pixel_decoder." either.
        (r"(?<=^sem_seg_head\.predictor\.)static_query\.", "query_feat."),
        (r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", _HEAD),
    ),
    "hf": (
        # transformers 5 has these names in memory but not in its files.
        (r"(?<=^model\.pixel_level_module\.encoder\.)(swin|model)\.", ""),
        (r"(?<=\.attention\.)q_proj\.", "self.query."),
        (r"(?<=\.attention\.)k_proj\.", "self.key."),
        (r"(?<=\.attention\.)v_proj\.", "self.value."),
        (r"(?<=\.attention\.)relative_position_bias\.", "self."),
        (r"(?<=\.attention\.)o_proj\.", "output.dense."),
        (r"(?<=\d\.)mlp\.fc1\.", "intermediate.dense."),
        (r"(?<=\d\.)mlp\.fc2\.", "output.dense."),
    ),
    "mmdet": (
        # mmseg, then mmdet 2, where attentions.0 is the encoder's self-attention but the
        # decoder's cross-attention.
        (r"^decode_head\.", _PANOPTIC),
        (r"(?<=pixel_decoder\.encoder\.layers\.)(\d+)\.attentions\.0\.", r"\1.self_attn."),
        (r"(?<=transformer_decoder\.layers\.)(\d+)\.attentions\.0\.", r"\1.cross_attn."),
        (r"(?<=transformer_decoder\.layers\.)(\d+)\.attentions\.1\.", r"\1.self_attn."),
        (r"(?<=\d\.)ffns\.0\.", "ffn."),
    ),
}
"""Patterns of earlier names, and today's, applied in this order."""

IGNORED = (
    r"(^|\.)(relative_position_index|num_batches_tracked|attn_mask)$",
    r"^criterion\.|\.loss_|^(pixel_mean|pixel_std)$|^data_preprocessor\.",
    # The classification model's last normalisation, which a backbone does not use.
    r"^model\.pixel_level_module\.encoder\.layernorm\.",
)
"""What files hold beside the weights: constants that follow from the configuration, and
what only training needs."""
