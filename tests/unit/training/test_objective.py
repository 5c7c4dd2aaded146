"""The prior-preserving loss."""

import torch

from dreambooth.training.objective import prior_preserving_loss


def test_the_loss_is_that_of_the_subject_plus_the_weighted_one_of_the_class() -> None:
    prediction = torch.zeros(4, 1, 2, 2)
    target = torch.cat([torch.full((2, 1, 2, 2), 2.0), torch.full((2, 1, 2, 2), 3.0)])
    for weight in (0.0, 0.5, 1.0, 2.0):
        assert prior_preserving_loss(prediction, target, weight).item() == 4.0 + weight * 9.0


def test_without_a_prior_weight_the_class_has_no_influence_at_all() -> None:
    prediction = torch.randn(4, 1, 2, 2, requires_grad=True)
    target = torch.randn(4, 1, 2, 2)
    target[2:] = torch.inf
    loss = prior_preserving_loss(prediction, target, 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert prediction.grad is not None
    assert torch.equal(prediction.grad[2:], torch.zeros(2, 1, 2, 2))
    assert prediction.grad[:2].abs().min() > 0


def test_the_sum_is_taken_in_float32() -> None:
    prediction = torch.full((2, 1, 64, 64), 1.0, dtype=torch.bfloat16)
    loss = prior_preserving_loss(prediction, torch.zeros(2, 1, 64, 64), 1 / 512)
    assert loss.dtype == torch.float32
    assert loss.item() == 1 + 1 / 512
