"""diffusers' modules with the kernels in them; see `dreambooth.kernels.fusing`.

Each is a subclass without state of its own: an object of the original class becomes one of it by
its `__class__`, and back. Where the kernels can't run, the original's forward does.
"""

from typing import Any

from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from dreambooth.kernels.attention import attention
from dreambooth.kernels.availability import check_available
from dreambooth.kernels.geglu import geglu
from dreambooth.kernels.group_norm import group_norm, group_norm_silu
from dreambooth.kernels.projections import project


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


class FusedGEGLU(GEGLU):  # type: ignore[misc]  # diffusers has no annotations
    """GEGLU with its gate in one pass."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Projects and gates `[..., K]` to `[..., D]`."""
        if check_available(hidden_states.device) is not None:
            result: Tensor = super().forward(hidden_states, *args, **kwargs)
            return result
        return geglu(self.proj(hidden_states))


class FusedResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """A residual block whose norms and activations are one operation each."""

    def forward(
        self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Maps `[N, C, H, W]` and the time embedding `[N, T]` to `[N, C', H, W]`."""
        if check_available(input_tensor.device) is not None:
            result: Tensor = super().forward(input_tensor, temb, *args, **kwargs)
            return result
        hidden: Tensor = self.conv1(_norm_silu(self.norm1, input_tensor))
        if self.time_emb_proj is not None and temb is not None:
            shift = temb if self.skip_time_act else self.nonlinearity(temb)
            hidden = hidden + self.time_emb_proj(shift)[:, :, None, None]
        hidden = self.conv2(self.dropout(_norm_silu(self.norm2, hidden)))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        hidden = input_tensor + hidden
        return hidden if self.output_scale_factor == 1.0 else hidden / self.output_scale_factor


class FusedAttnProcessor(AttnProcessor2_0):  # type: ignore[misc]
    """Attention with joined projections and the backend measured to be fastest."""

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
        heads = [
            tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for tensor in (query, key, value)
        ]
        attended = attention(heads[0], heads[1], heads[2], attention_mask)
        out: Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
        if residual.dim() == 4:
            out = out.transpose(1, 2).unflatten(2, residual.shape[2:])
        if attn.residual_connection:
            out = out + residual
        return out if attn.rescale_output_factor == 1.0 else out / attn.rescale_output_factor


def _norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return group_norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def _is_plain(attn: Attention) -> bool:
    parts = (attn.spatial_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    return all(part is None for part in parts)


def _projections(
    attn: Attention, hidden: Tensor, encoder_hidden: Tensor | None
) -> tuple[Tensor, ...]:
    if encoder_hidden is None:
        return project(hidden, [attn.to_q, attn.to_k, attn.to_v])
    return (attn.to_q(hidden), *project(encoder_hidden, [attn.to_k, attn.to_v]))


def is_fusable_block(block: ResnetBlock2D) -> bool:
    """Whether a residual block is of the kind that Stable Diffusion's networks have."""
    return (
        block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and isinstance(block.nonlinearity, nn.SiLU)
        and all(type(norm) is nn.GroupNorm and norm.affine for norm in (block.norm1, block.norm2))
    )
