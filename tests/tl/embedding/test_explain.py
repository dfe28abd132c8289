"""Why an embedding is what it is: attributions that add up, against automatic differentiation."""

import numpy as np
import pandas as pd
import pytest
import torch

from sagefm import InputError
from sagefm.tl import explain


@pytest.fixture(scope="module")
def parts(slide, model):
    """What centers, and their neighbors, put into the pooled input: spots × vocabulary."""
    prepared = model.prepare(slide)
    x = prepared.log1p.toarray()
    center = x / 15
    return torch.from_numpy(center), torch.from_numpy(x[prepared.neighbors[:, 1:]].sum(1) / 15)


def embedded(model, total):
    with torch.no_grad():
        return model.network.embed(total @ model.network.first)


@pytest.mark.parametrize("steps", [1, 64])
@pytest.mark.parametrize("against", [None, slice(20, 50), slice(3, 4)])
def test_attributions_add_up_to_the_distance(slide, model, parts, steps, against):
    spots = list(slide.obs_names[[3, 77, 140]])[against == slice(3, 4) :]
    names = None if against is None else list(slide.obs_names[against])
    table = explain(slide, model, spots, against=names, steps=steps, top=None)
    baseline = embedded(model, sum(parts)[against or slice(None)].mean(dim=0))
    for spot, genes in table.groupby("spot"):
        own = model.embed(slide)[slide.obs_names.get_loc(spot)]
        distance = np.linalg.norm(own - baseline.numpy())
        assert genes["total"].sum() == pytest.approx(distance, rel=1e-4)
    np.testing.assert_allclose(table["center"] + table["neighbors"], table["total"], atol=1e-6)
    assert set(table["spot"]) == set(spots)


def test_they_are_integrated_gradients(slide, model, parts):
    """The integral by brute force, of the inputs of the center and of its neighbors."""
    spot, n_points = 33, 2000
    start = [part.mean(dim=0) for part in parts]
    end = [part[spot] for part in parts]
    moved = embedded(model, sum(end)) - embedded(model, sum(start))
    shares = ((torch.arange(n_points) + 0.5) / n_points)[:, None]
    places = [a + shares * (b - a) for a, b in zip(start, end, strict=True)]
    for place in places:
        place.requires_grad_()
    z = model.network.embed(sum(places) @ model.network.first)
    (z @ (moved / moved.norm())).sum().backward()
    table = explain(slide, model, slide.obs_names[spot], top=None).set_index("gene")
    for part, place, a, b in zip(("center", "neighbors"), places, start, end, strict=True):
        wanted = ((b - a) * place.grad.mean(dim=0)).numpy()
        found = table[part].reindex(model.vocabulary).fillna(0)
        assert np.abs(wanted).max() > 1e-3
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_the_table(slide, model):
    names = list(slide.obs_names[[9, 4]])
    table = explain(slide, model, names, top=7)
    assert list(table.columns) == ["spot", "gene", "center", "neighbors", "total"]
    assert table["spot"].tolist() == [names[0]] * 7 + [names[1]] * 7
    whole = explain(slide, model, names[1], top=None)
    assert whole["total"].abs().is_monotonic_decreasing
    assert (whole["total"] != 0).all()
    pd.testing.assert_frame_equal(table[7:].reset_index(drop=True), whole[:7])


def test_a_spot_against_itself_has_nothing_to_explain(slide, model):
    spot = slide.obs_names[5]
    assert explain(slide, model, spot, against=[spot]).empty


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"spots": []}, "spots: is empty"),
        ({"spots": ["nowhere"]}, "spots: 1 name not in the slide"),
        ({"against": ["nowhere"]}, "against: 1 name not in the slide"),
        ({"steps": 0}, "steps=0"),
        ({"top": 0}, "top=0"),
    ],
)
def test_mistakes_are_named(slide, model, arguments, said):
    with pytest.raises(InputError, match=said):
        explain(slide, model, **{"spots": slide.obs_names[0]} | arguments)


def test_names_must_tell_spots_apart(slide, model):
    twins = slide.copy()
    twins.obs_names = ["spot"] * slide.n_obs
    with pytest.raises(InputError, match="obs_names_make_unique"):
        explain(twins, model, "spot")
