"""Changed counts, against slides that are really changed, with the background of before."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sagefm.nn import Context, MaskedGenes, NeighborhoodChange, build, encode
from sagefm.nn.context import recomputed
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.neighborhood import nearest

N_SPOTS, N_GENES = 90, 40
GENES, WANTED = np.array([3, 11]), torch.tensor([8, 3, 20, 39])
PLACES = {"neighbors": slice(1, None), "center": slice(0, 1), "neighborhood": slice(None)}
HIDDEN = [None, np.array([3, 8, 20])]


@pytest.fixture(scope="module")
def tissue():
    """Counts of spots of two kinds, their neighborhoods, and other counts of the same genes."""
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.full(N_GENES, 0.5), 2)
    rates = profiles[np.arange(N_SPOTS) * 2 // N_SPOTS] * rng.gamma(5, 40, N_SPOTS)[:, None]
    places = np.stack([np.arange(N_SPOTS) % 9, np.arange(N_SPOTS) // 9], axis=1)
    points = places + rng.uniform(-0.1, 0.1, (N_SPOTS, 2))
    counts = rng.poisson(rates).astype(np.float32)
    after = counts.copy()
    after[:, GENES] = rng.poisson(15, (N_SPOTS, len(GENES)))
    return counts, nearest(points, 15), after


@pytest.fixture(scope="module")
def network():
    """One in which every part counts."""
    torch.manual_seed(0)
    made = build("context", N_GENES, (8, 12, 12, 6))
    assert isinstance(made, Context)
    with torch.no_grad():
        made.first.mul_(5)
        made.decoder.mul_(10)
        made.usual.copy_(torch.rand(N_GENES) * 5)
        for layer in (made.ring_query, made.sharpness, made.level):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return made.eval()


def encoded(network, counts, neighbors, like=None, measured=None):
    measured = np.ones(N_GENES, dtype=bool) if measured is None else measured
    slide = AlignedSlide.of_counts(csr_matrix(counts), neighbors, measured)
    one = encode(network, slide)
    if like is not None:
        one.whole.expected, one.whole.expected_of = like.whole.expected, like.whole.expected_of
    return one


def change_of(before, after, neighbors, places, hidden=None):
    """Versions × centers × neighborhood × genes; what is hidden in a center stays there."""
    old, new = (values[neighbors][:, :, GENES] for values in (before, after))
    kept = np.ones(new.shape, dtype=bool)
    kept[:, places] = False
    if hidden is not None:
        kept[:, 0, np.isin(GENES, hidden)] = True
    new = np.where(kept, old, new)
    parts = (np.log1p(new) - np.log1p(old), new - old)
    return NeighborhoodChange(torch.from_numpy(GENES), *(torch.from_numpy(x)[None] for x in parts))


def really_changed(network, like, tissue, center, places, hidden, measured=None):
    """Change the slide in the neighborhood of one center, and predict that."""
    before, neighbors, after = tissue
    counts = before.copy()
    rows = neighbors[center][places]
    counts[np.ix_(rows, GENES)] = after[np.ix_(rows, GENES)]
    one = encoded(network, counts, neighbors, like, measured)
    masked = None if hidden is None else MaskedGenes(hidden)
    return one.centers(neighbors[[center]], masked).unchanged(WANTED)[0]


@pytest.mark.parametrize("hidden", HIDDEN, ids=["all visible", "some masked"])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("most", [1024, 20])
@torch.inference_mode()
def test_it_is_exact(network, tissue, places, hidden, most, monkeypatch):
    monkeypatch.setattr(Context, "MOST", most)
    before, neighbors, after = tissue
    one, where = encoded(network, before, neighbors), PLACES[places]
    centers = one.centers(neighbors, None if hidden is None else MaskedGenes(hidden))
    [found] = centers.recomputed(change_of(before, after, neighbors, where, hidden), WANTED)
    some = [0, 17, 40, 67, 89]
    wanted = [really_changed(network, one, tissue, row, where, hidden) for row in some]
    assert (found - centers.unchanged(WANTED)).abs().max() > 0.05
    torch.testing.assert_close(found[some], torch.stack(wanted), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_genes_that_the_slide_lacks_follow_the_library_size(network, tissue):
    before, neighbors, after = tissue
    measured = np.arange(N_GENES) != 39
    parts = before * measured, neighbors, after * measured
    one = encoded(network, parts[0], neighbors, measured=measured)
    hidden = np.array([8, 39])
    centers = one.centers(neighbors, MaskedGenes(hidden))
    change = change_of(parts[0], parts[2], neighbors, slice(1, None))
    [found] = centers.recomputed(change, WANTED)
    wanted = really_changed(network, one, parts, 5, slice(1, None), hidden, measured)
    torch.testing.assert_close(found[5], wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_only_centers_whose_neighborhood_changes_are_predicted_anew(network, tissue):
    before, neighbors, after = tissue
    mixed = before.copy()
    mixed[40] = after[40]
    centers = encoded(network, before, neighbors).centers(neighbors, MaskedGenes(HIDDEN[1]))
    [found] = centers.recomputed(change_of(before, mixed, neighbors, slice(1, None)), WANTED)
    same = (found == centers.unchanged(WANTED)).all(dim=1).numpy()
    np.testing.assert_array_equal(same, ~(neighbors[:, 1:] == 40).any(axis=1))


@torch.inference_mode()
def test_versions_and_blocks_change_nothing(network, tissue, monkeypatch):
    before, neighbors, after = tissue
    centers = encoded(network, before, neighbors).centers(neighbors, MaskedGenes(HIDDEN[1]))
    few = before.copy()
    few[:50] = after[:50]
    several = [change_of(before, x, neighbors, slice(1, None)) for x in (after, before, few)]
    alone = torch.cat([centers.recomputed(one, WANTED) for one in several])
    genes = several[0].genes
    together = NeighborhoodChange(
        genes, *(torch.cat(parts) for parts in list(zip(*several, strict=True))[1:])
    )
    torch.testing.assert_close(centers.recomputed(together, WANTED), alone)
    torch.testing.assert_close(alone[1], centers.unchanged(WANTED), atol=0, rtol=0)
    monkeypatch.setattr(recomputed, "_CENTERS", 7)
    monkeypatch.setattr(recomputed, "_ENTRIES", 2 * N_SPOTS)
    torch.testing.assert_close(centers.recomputed(together, WANTED), alone)


@torch.inference_mode()
def test_no_masked_count_of_a_center_reaches_its_prediction(network, tissue):
    before, neighbors, after = tissue
    found = []
    for hidden_count in (0, 50):
        counts = before.copy()
        counts[7, HIDDEN[1]] = hidden_count
        centers = encoded(network, counts, neighbors).centers(neighbors, MaskedGenes(HIDDEN[1]))
        change = change_of(counts, after, neighbors, slice(None), HIDDEN[1])
        found.append(centers.recomputed(change, WANTED)[0])
    torch.testing.assert_close(found[0][7], found[1][7], atol=0, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_masks_of_single_centers_are_refused(network, tissue):
    before, neighbors, after = tissue
    one, change = encoded(network, before, neighbors), change_of(before, after, neighbors, slice(1))
    some = np.eye(N_SPOTS, 3, dtype=bool)
    for masked in (MaskedGenes(HIDDEN[1], some), MaskedGenes(HIDDEN[1], neighbors=True)):
        with torch.inference_mode(), pytest.raises(ValueError, match="masked in all centers"):
            one.centers(neighbors, masked).recomputed(change, WANTED)


@torch.inference_mode()
def test_in_the_published_network_the_mean_of_log1p_counts_says_all(tissue):
    before, neighbors, after = tissue
    network = build("published", N_GENES, (12, 8, 9, 7, 10))
    centers = encoded(network, before, neighbors).centers(neighbors)
    change = change_of(before, after, neighbors, slice(1, None))
    held = centers.changed(change.genes, change.log1p.mean(dim=2), WANTED)
    torch.testing.assert_close(centers.recomputed(change, WANTED)[0], held)
