"""diffusers' modules with the kernels in them; see `dreambooth.kernels.fusing`.

Each is a subclass without state of its own: an object of the original class becomes one of it by
its `__class__`, and back. Where the kernels can't run, the original's forward does.
"""

from typing import Any

import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.convolution import convolve, pointwise
from dreambooth.kernels.geglu import geglu
from dreambooth.kernels.group_norm import group_norm, group_norm_silu, image_of, rows_of
from dreambooth.kernels.layer_norm import add_layer_norm, is_plain, layer_norm
from dreambooth.kernels.linear import linear
from dreambooth.kernels.projections import project
from dreambooth.kernels.residual import add_residual
from dreambooth.kernels.upsampling import double


class FusedGroupNorm(nn.GroupNorm):
    """GroupNorm that leaves channels_last images as they lie."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes `[N, C, H, W]` or `[N, C, L]`."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class FusedGroupNormSiLU(nn.GroupNorm):
    """GroupNorm and the SiLU after it."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes and activates `[N, C, H, W]`."""
        return group_norm_silu(input, self.num_groups, self.weight, self.bias, self.eps)


class FusedLayerNorm(nn.LayerNorm):
    """LayerNorm in one pass, and its gradients in another."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes `[..., C]`."""
        return layer_norm(input, self)


class FusedLinear(nn.Linear):
    """A linear layer whose bias's gradient costs one quick pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `[..., K]` to `[..., D]`."""
        return linear(input, self.weight, self.bias)


class FusedGEGLU(GEGLU):  # type: ignore[misc]  # diffusers has no annotations
    """GEGLU with its gate in one pass."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Projects and gates `[..., K]` to `[..., D]`."""
        if check_available(hidden_states.device) is not None:
            result: Tensor = super().forward(hidden_states, *args, **kwargs)
            return result
        return geglu(self.proj(hidden_states))


class FusedResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """A residual block without passes for activations, biases and the time embedding."""

    def forward(
        self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Maps `[N, C, H, W]` and the time embedding `[N, T]` to `[N, C', H, W]`."""
        if check_available(input_tensor.device) is not None or not self._embeds_plainly(temb):
            result: Tensor = super().forward(input_tensor, temb, *args, **kwargs)
            return result
        hidden, shift = convolve(self.conv1, _norm_silu(self.norm1, input_tensor))
        if temb is not None:
            active = temb if self.skip_time_act else self.nonlinearity(temb)
            embedded = self.time_emb_proj(active)
            shift = embedded if shift is None else embedded + shift
        elif shift is not None:
            shift = shift.expand(len(hidden), -1)
        hidden = self.dropout(_norm_silu(self.norm2, hidden, shift))
        hidden, bias = convolve(self.conv2, hidden)
        if self.conv_shortcut is not None:
            input_tensor = pointwise(self.conv_shortcut, input_tensor)
        hidden = _add(hidden, input_tensor, bias)
        return hidden if self.output_scale_factor == 1.0 else hidden / self.output_scale_factor

    def _embeds_plainly(self, temb: Tensor | None) -> bool:
        """Whether the time embedding, if there is one, is projected and added."""
        return temb is None or (
            self.time_embedding_norm == "default" and self.time_emb_proj is not None
        )


class FusedBasicTransformerBlock(BasicTransformerBlock):  # type: ignore[misc]
    """A transformer block whose residual connections are one operation with the norm after them."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Maps `[B, L, K]` and the text `[B, S, E]` to `[B, L, K]`."""
        unavailable = check_available(hidden_states.device) is not None
        if unavailable or cross_attention_kwargs or self._chunk_size is not None:
            result: Tensor = super().forward(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                timestep,
                cross_attention_kwargs,
                class_labels,
                added_cond_kwargs,
            )
            return result
        attended = self.attn1(
            layer_norm(hidden_states, self.norm1),
            encoder_hidden_states=encoder_hidden_states if self.only_cross_attention else None,
            attention_mask=attention_mask,
        )
        hidden, normed = add_layer_norm(attended, hidden_states, self.norm2)
        attended = self.attn2(
            normed,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=encoder_attention_mask,
        )
        hidden, normed = add_layer_norm(attended, hidden, self.norm3)
        forwarded: Tensor = self.ff(normed)
        return forwarded + hidden


class FusedTransformer2DModel(Transformer2DModel):  # type: ignore[misc]
    """A transformer over an image's pixels that never leaves the channels_last format."""

    def _operate_on_continuous_inputs(self, hidden_states: Tensor) -> tuple[Tensor, int]:
        if check_available(hidden_states.device) is not None:
            result: tuple[Tensor, int] = super()._operate_on_continuous_inputs(hidden_states)
            return result
        hidden = self.norm(hidden_states)
        if self.use_linear_projection:
            rows = self.proj_in(rows_of(hidden))
        else:
            rows = rows_of(pointwise(self.proj_in, hidden))
        return rows, rows.shape[-1]

    def _get_output_for_continuous_inputs(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        batch_size: int,
        height: int,
        width: int,
        inner_dim: int,
    ) -> Tensor:
        if check_available(hidden_states.device) is not None:
            result: Tensor = super()._get_output_for_continuous_inputs(
                hidden_states, residual, batch_size, height, width, inner_dim
            )
            return result
        shape = (batch_size, -1, height, width)
        if self.use_linear_projection:
            image = image_of(self.proj_out(hidden_states), shape)
        else:
            image = pointwise(self.proj_out, image_of(hidden_states, shape))
        return image + residual


class FusedUpsample2D(Upsample2D):  # type: ignore[misc]
    """Doubles an image where it lies; torch's own uses a fraction of the memory bandwidth."""

    def forward(
        self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Maps `[N, C, H, W]` to `[N, C', 2H, 2W]`, or to the given size."""
        plain = output_size is None and self.norm is None and self.interpolate
        unavailable = check_available(hidden_states.device) is not None
        if not plain or unavailable or self.use_conv_transpose or self.name != "conv":
            result: Tensor = super().forward(hidden_states, output_size, *args, **kwargs)
            return result
        image = double(hidden_states)
        return self.conv(image) if self.use_conv else image


class FusedAttnProcessor(AttnProcessor2_0):  # type: ignore[misc]
    """Attention with joined projections, over pixels where they lie."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Attends from `[B, L, K]` or `[B, K, H, W]` to itself or to `[B, S, E]`."""
        if check_available(hidden_states.device) is not None or not _is_plain(attn):
            result: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs
            )
            return result
        residual = hidden_states
        if hidden_states.dim() == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        query, key, value = _projections(attn, hidden_states, encoder_hidden_states)
        batch, length = key.shape[:2]
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, length, batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])
        query, key, value = (
            tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for tensor in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        out: Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
        if residual.dim() == 4:
            out = out.transpose(1, 2).unflatten(2, residual.shape[2:])
        if attn.residual_connection:
            out = out + residual
        return out if attn.rescale_output_factor == 1.0 else out / attn.rescale_output_factor


def _norm_silu(norm: nn.GroupNorm, x: Tensor, shift: Tensor | None = None) -> Tensor:
    return group_norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps, shift=shift)


def _add(x: Tensor, residual: Tensor, bias: Tensor | None) -> Tensor:
    return x + residual if bias is None else add_residual(x, residual, bias)


def _is_plain(attn: Attention) -> bool:
    parts = (attn.spatial_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    return all(part is None for part in parts)


def _projections(
    attn: Attention, hidden: Tensor, encoder_hidden: Tensor | None
) -> tuple[Tensor, ...]:
    if encoder_hidden is None:
        return project(hidden, [attn.to_q, attn.to_k, attn.to_v])
    return (attn.to_q(hidden), *project(encoder_hidden, [attn.to_k, attn.to_v]))


def is_fusable_transformer(block: BasicTransformerBlock) -> bool:
    """Whether a transformer block is of the kind that Stable Diffusion's networks have."""
    return (
        block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block.attn2 is not None
        and all(is_plain(norm) for norm in (block.norm1, block.norm2, block.norm3))
    )


def is_fusable_block(block: ResnetBlock2D) -> bool:
    """Whether a residual block is of the kind that Stable Diffusion's networks have."""
    return (
        block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm != "scale_shift"
        and isinstance(block.nonlinearity, nn.SiLU)
        and all(type(norm) is nn.GroupNorm and norm.affine for norm in (block.norm1, block.norm2))
    )
