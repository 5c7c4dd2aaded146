"""Plans for fitting a step into a device's memory."""

import torch

from dreambooth.training.memory import Activations, Place, latents_place, memory_plans, state_bytes


def parts(pairs: int) -> list[tuple[int, int, str]]:
    plans = memory_plans(pairs, Place.DEVICE)
    return [(plan.batches, plan.pairs, plan.activations.value) for plan in plans]


def test_plans_go_from_the_whole_batch_by_halves_to_one_pair_and_then_recompute() -> None:
    assert parts(1) == [(1, 1, "kept"), (1, 1, "recomputed")]
    assert parts(2) == [(1, 2, "kept"), (2, 1, "kept"), (2, 1, "recomputed")]
    assert parts(8) == [
        (1, 8, "kept"),
        (2, 4, "kept"),
        (4, 2, "kept"),
        (8, 1, "kept"),
        (8, 1, "recomputed"),
    ]


def test_micro_batches_are_equal_whatever_the_batch() -> None:
    for pairs in (3, 5, 6, 7, 12, 30):
        for plan in memory_plans(pairs, Place.DEVICE):
            assert plan.batches * plan.pairs == pairs
        assert memory_plans(pairs, Place.DEVICE)[-1].activations is Activations.RECOMPUTED


def test_state_of_stable_diffusion_fits_a_small_card_with_room_for_activations() -> None:
    unet, text_encoder = 859_520_964, 123_060_480
    full = state_bytes(unet + text_encoder, 0, torch.bfloat16)
    assert full / 2**30 == 16 * (unet + text_encoder) / 2**30 < 15
    lora = state_bytes(2_000_000, unet + text_encoder, torch.bfloat16)
    assert lora / 2**30 < 2
    assert state_bytes(10, 5, torch.float32) == 180


def test_without_a_gpu_latents_are_where_all_else_is() -> None:
    assert latents_place(torch.device("cpu"), [torch.zeros(10**6)]) is Place.DEVICE
