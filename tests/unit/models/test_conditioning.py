"""What prompts become, with a pooled embedding and without."""

import pytest
import torch

from dreambooth.models.conditioning import Conditioning


def rows(count: int, *, pooled: bool) -> Conditioning:
    tokens = torch.arange(count * 6, dtype=torch.float32).view(count, 3, 2)
    return Conditioning(tokens, tokens[:, 0] + 100 if pooled else None)


@pytest.mark.parametrize("pooled", [False, True])
def test_rows_are_put_together_and_repeated_with_their_pooled_embeddings(pooled: bool) -> None:
    both = Conditioning.cat([rows(1, pooled=pooled), rows(2, pooled=pooled)])
    assert len(both) == 3
    twice = both.repeat_interleave(2)
    assert torch.equal(twice.tokens[::2], both.tokens)
    assert torch.equal(twice.tokens[1::2], both.tokens)
    assert (twice.pooled is not None) == pooled
    if twice.pooled is not None and both.pooled is not None:
        assert torch.equal(twice.pooled[1::2], both.pooled)


@pytest.mark.parametrize("pooled", [False, True])
def test_values_are_copied_to_where_a_graph_reads_them(pooled: bool) -> None:
    given = rows(2, pooled=pooled)
    buffers = rows(2, pooled=pooled).clone()
    places = [buffers.tokens.data_ptr()]
    buffers.tokens.zero_()
    if buffers.pooled is not None:
        places.append(buffers.pooled.data_ptr())
        buffers.pooled.zero_()
    given.copy_into(buffers)
    assert torch.equal(buffers.tokens, given.tokens)
    assert buffers.tokens.data_ptr() == places[0]
    if buffers.pooled is not None and given.pooled is not None:
        assert torch.equal(buffers.pooled, given.pooled)
        assert buffers.pooled.data_ptr() == places[1]


@pytest.mark.parametrize("pooled", [False, True])
def test_both_embeddings_change_type_together_and_forget_where_they_came_from(
    pooled: bool,
) -> None:
    given = rows(2, pooled=pooled)
    given.tokens.requires_grad_()
    half = given.to(dtype=torch.bfloat16).detach()
    assert half.dtype == torch.bfloat16
    assert not half.tokens.requires_grad
    assert half.pooled is None or half.pooled.dtype == torch.bfloat16
    assert given.dtype == torch.float32
