"""The DreamBooth objective."""

import torch.nn.functional as F
from torch import Tensor


def prior_preserving_loss(prediction: Tensor, target: Tensor, prior_weight: float) -> Tensor:
    """Mean squared error on the subject plus `prior_weight` times that on the class.

    Equation 2 of arXiv 2208.12242. The first half of the batch are instance samples, the second
    half class samples; the sum is taken in float32.

    Args:
        prediction: `[2P, C, h, w]`, the denoiser's output for P pairs.
        target: The same shape; noise or velocity.
        prior_weight: λ; 0 leaves the class out.

    Returns:
        A scalar.
    """
    instance, prior = prediction.float().chunk(2)
    instance_target, prior_target = target.float().chunk(2)
    loss = F.mse_loss(instance, instance_target)
    if prior_weight == 0:
        return loss
    return loss + prior_weight * F.mse_loss(prior, prior_target)
