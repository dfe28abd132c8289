"""Slides whose counts stay on disk are annotated as those in memory."""

import anndata as ad
import numpy as np
import pytest

import sagefm
from sagefm.pp import on_disk, streamed
from sagefm.pp.simulate import simulate
from sagefm.tl import annotate, learn_annotator
from sagefm.tl.annotation import _on_disk

KEY = "domain"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(on_disk, "BLOCK", 3000)
    monkeypatch.setattr(streamed, "TILE", 5000)
    monkeypatch.setattr(_on_disk, "_BLOCK", 16)


@pytest.fixture(scope="module")
def known():
    return {f"p{i}": simulate(120, n_domains=3, seed=i, patient=f"p{i}") for i in range(3)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two sections that lack some genes, spot by spot in turn; one is of other tissue."""
    same = simulate(150, n_domains=3, seed=3)
    other = simulate(130, n_domains=3, seed=4, biology_seed=9)
    both = ad.concat({"a": same, "b": other}, label="lane", index_unique="-")
    rng = np.random.default_rng(0)
    both = both[rng.permutation(both.n_obs), rng.random(both.n_vars) < 0.8]
    path = tmp_path_factory.mktemp("annotated") / "both.h5ad"
    both.copy().write_h5ad(path)
    return path


def both(path):
    """The slide with its counts on disk, and in memory."""
    return [sagefm.read(path, slide_key="lane", backed=backed) for backed in (True, False)]


def require_same(on_disk, whole):
    assert on_disk.X is None
    key = "sagefm_label"
    assert (on_disk.obs[key] == whole.obs[key]).all()
    for column in (f"{key}_confidence", f"{key}_novelty"):
        np.testing.assert_allclose(on_disk.obs[column], whole.obs[column], atol=1e-5)
    p = [slide.obsm[f"{key}_probabilities"] for slide in (on_disk, whole)]
    np.testing.assert_allclose(*p, atol=1e-5)
    entries = [slide.uns["sagefm"]["annotate"] for slide in (on_disk, whole)]
    assert entries[0] == entries[1]
    assert len(set(whole.obs[key].astype(str))) > 1


@pytest.mark.parametrize(
    ("features", "centered"),
    [
        ("combined", None), ("expression", True), ("expression", False), ("embedding", True),
        ("embedding", False),
    ],
)  # fmt: skip
def test_labels_and_novelty_are_those_in_memory(known, path, context_model, features, centered):
    annotator = learn_annotator(
        known, context_model, KEY, features=features, centered=centered, slide_key=""
    )
    slides = both(path)
    assert len(list(context_model.open(slides[0]).tiles())) > 10
    for slide in slides:
        annotate(annotator, slide, context_model, error_rate=0.6)
    require_same(*slides)


def test_labeled_slides_are_the_reference(known, path, model):
    slides = both(path)
    for slide in slides:
        annotate(known, slide, model, KEY, features="combined")
    require_same(*slides)


def test_few_spots_are_in_memory_together(known, path, model, monkeypatch):
    annotator = learn_annotator(known, model, KEY)
    (slide, _), sizes, take = both(path), [], on_disk.CountsOnDisk.take

    def taken(self, spots):
        sizes.append(len(spots))
        return take(self, spots)

    monkeypatch.setattr(on_disk.CountsOnDisk, "take", taken)
    annotate(annotator, slide, model)
    assert len(sizes) > 30 and max(sizes) < slide.n_obs / 2
