"""The network is the published one: held against the oracle on a graph library."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from reference import published
from sagefm.model import SageFM
from sagefm.nn import draw_masks
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.read import read
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.published import gather

TOLERANCE = 1e-5


def oracle(n_genes, widths, seed=0):
    torch.manual_seed(seed)
    network = published.PublishedNetwork(n_genes, widths)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # the library starts them at zero, where errors would hide
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def converted(network, vocabulary, folder):
    """Take the oracle's weights the way users take the published ones: through a checkpoint."""
    torch.save({"model_state_dict": network.state_dict()}, folder / "published.pt")
    vocabulary.write(folder / "genes.txt")
    return SageFM.from_published(folder / "published.pt", genes=folder / "genes.txt")


def masks(shape, seed=1):
    return np.random.default_rng(seed).random(shape) < 0.3


def largest_difference(a, b):
    return float(np.abs(a - b).max())


def test_the_published_sizes_have_the_published_number_of_parameters():
    network = published.PublishedNetwork(14_558)
    assert sum(p.numel() for p in network.parameters()) == 31_405_790
    ours = SageFM.new(Vocabulary(tuple(f"G{i}" for i in range(14_558)))).network
    assert sum(p.numel() for p in ours.parameters()) == 31_405_790


@pytest.mark.parametrize("widths", [(32, 16, 16, 16, 24), (8, 8, 8, 8, 8), (64, 16, 32, 8, 128)])
def test_simulated_slide(slide, vocabulary, widths, tmp_path):
    network = oracle(len(vocabulary), widths)
    model = converted(network, vocabulary, tmp_path)
    prepared = model.prepare(slide)
    neighbors = published.nearest_spots(slide.obsm["spatial"])[::4]
    hidden = masks(prepared.log1p.shape)

    embedding = published.run(network, prepared.log1p, neighbors)
    assert np.abs(embedding).max() > 0.1
    assert largest_difference(model.embed(slide)[::4], embedding) <= TOLERANCE
    full = published.run(network, prepared.log1p, neighbors, what="predict")
    assert (full > 0).any()
    assert largest_difference(model.predict(slide)[::4], full) <= TOLERANCE
    # The oracle takes the rows of `hidden` in the order of the centers it is given.
    masked = published.run(network, prepared.log1p, neighbors, hidden[::4], "predict")
    assert largest_difference(masked, full) > 1e-3  # the mask matters
    assert largest_difference(model.predict(slide, hidden=hidden)[::4], masked) <= TOLERANCE


def test_training_form_is_the_same_network(slide, model):
    """Batches of patches, as training has them, must give what the fast path gives."""
    prepared = model.prepare(slide)
    whole = AlignedSlide.of_counts(prepared.counts, prepared.neighbors, prepared.measured)
    spots = [np.arange(40, 100), np.array([7, 3, 199])]
    drawn = draw_masks(63, len(model.vocabulary), 0.3, np.random.default_rng(0))
    batch = gather([(whole, part) for part in spots], drawn, drawn.n_masked())
    with torch.inference_mode():
        embedding = model.network.embed(model.network.mix(batch.rows, batch.operators))
        predicted = model.network.decode(embedding).numpy()
    centers = np.concatenate(spots)
    hidden = np.zeros(prepared.log1p.shape, dtype=bool)
    hidden[centers] = drawn.dense()
    assert largest_difference(predicted, model.predict(slide, hidden=hidden)[centers]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["her2st_A1", "dlpfc_151673"])
def test_real_slide_at_published_size(shared, name, tmp_path):
    slide = read(shared / "slides" / f"{name}.h5ad")
    slide = slide[np.argsort(slide.obsm["spatial"][:, 0])[:400]].copy()  # a strip of the tissue
    keep = np.random.default_rng(0).permutation(slide.n_obs)[:40]
    vocabulary = Vocabulary.read(shared / "sagefm_published_genes.txt")
    network = oracle(len(vocabulary), (1024, 512, 512, 512, 1024))
    model = converted(network, vocabulary, tmp_path)
    prepared = model.prepare(slide)
    neighbors = published.nearest_spots(slide.obsm["spatial"])
    np.testing.assert_array_equal(prepared.neighbors, neighbors)
    hidden = masks(prepared.log1p.shape)

    embedding = published.run(network, prepared.log1p, neighbors[keep])
    assert largest_difference(model.embed(prepared)[keep], embedding) <= TOLERANCE
    masked = published.run(network, prepared.log1p, neighbors[keep], hidden[keep], "predict")
    ours = model.predict(prepared, hidden=sp.csr_matrix(hidden))
    assert largest_difference(ours[keep], masked) <= TOLERANCE
