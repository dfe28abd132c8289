import torch
from hypothesis import given
from hypothesis import strategies as st

from sagefm.nn import draw_masks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 20), st.integers(1, 300), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_every_spot_hides_the_same_number_of_genes(n_spots, n_genes, fraction, seed):
    masks = draw_masks(n_spots, n_genes, fraction, generator(seed))
    assert masks.shape == (n_spots, n_genes)
    assert (masks.sum(dim=1) == max(1, round(fraction * n_genes))).all()


def test_spots_differ_and_every_gene_is_hidden_equally_often():
    masks = draw_masks(4000, 50, 0.3, generator())
    assert not torch.equal(masks[0], masks[1])
    shares = masks.float().mean(dim=0)
    # 4000 draws with p = 0.3: standard deviation 0.0072
    assert (shares - 0.3).abs().max() < 5 * 0.0073


def test_masks_depend_on_the_seed_alone():
    assert torch.equal(draw_masks(5, 40, 0.3, generator(7)), draw_masks(5, 40, 0.3, generator(7)))
    assert not torch.equal(
        draw_masks(5, 40, 0.3, generator(7)), draw_masks(5, 40, 0.3, generator(8))
    )
