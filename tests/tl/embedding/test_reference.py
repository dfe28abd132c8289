"""Embeddings that can be compared between slides: what the spots are compared with."""

import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import sagefm
from sagefm import InputError
from sagefm.pp import nearest, simulate
from sagefm.tl import embed, embed_many
from sagefm.tl.embedding import embed_by_model

KEYS = ("X_sagefm", "X_sagefm_spot")


@pytest.fixture(scope="module")
def pair(slide):
    """Two slides of one tissue, of which each lacks some genes of the other."""
    first, second = slide[:120].copy(), slide[80:].copy()
    return first[:, 40:].copy(), second[:, :-40].copy()


@pytest.fixture
def slides(pair):
    return [one.copy() for one in pair]


def embedded(slides, model, **options):
    slides = [slide.copy() for slide in slides]
    embed(slides, model, **options)
    return slides


def made(slide):
    return slide.uns["sagefm"]["embed"]


def assert_close(one, other):
    for key in KEYS:
        np.testing.assert_allclose(one.obsm[key], other.obsm[key], atol=1e-6)


@pytest.fixture
def notes():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("sagefm")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("network", ["model", "context_model"])
def test_one_slide_has_its_own_profile(network, request, slide):
    model = request.getfixturevalue(network)
    expected = model.embed(slide)
    for reference in (None, "slide"):
        one = slide.copy()
        embed(one, model, reference=reference)
        assert np.array_equal(one.obsm["X_sagefm"], expected)
        assert made(one)["reference"] == "slide"


def test_the_sections_of_one_object_can_share_a_profile(slide, slides, context_model):
    alone = slide.copy()
    embed(alone, context_model, reference="shared")
    np.testing.assert_allclose(alone.obsm["X_sagefm"], context_model.embed(slide), atol=1e-5)
    names = slides[0].var_names.intersection(slides[1].var_names)
    slides = [one[:, names].copy() for one in slides]
    both = ad.concat(slides, keys=["a", "b"], label="slide", index_unique="-")
    embed(both, context_model, slide_key="slide", reference="shared")
    apart = np.vstack([o.obsm["X_sagefm"] for o in embedded(slides, context_model,
                                                             reference="shared")])  # fmt: skip
    np.testing.assert_allclose(both.obsm["X_sagefm"], apart, atol=1e-5)


def test_own_profiles_of_several_are_those_of_each_alone(slides, context_model):
    both = embedded(slides, context_model, reference="slide")
    for slide, one in zip(slides, both, strict=True):
        embed(slide, context_model)
        assert np.array_equal(one.obsm["X_sagefm"], slide.obsm["X_sagefm"])


def test_a_shared_profile_makes_a_spot_of_two_slides_one_point(slide, context_model):
    """The same spots on slides of different composition and with different genes."""
    dense = slide.X.toarray()
    order = np.argsort(dense @ np.linspace(0, 1, slide.n_vars) / dense.sum(axis=1))
    first, second = slide[np.sort(order[:150])].copy(), slide[np.sort(order[50:])].copy()
    second = second[:, :-60].copy()
    common = first.obs_names.intersection(second.obs_names)

    def distance(reference):
        spots = [
            ad.AnnData(s.obsm["X_sagefm_spot"], obs=s.obs[[]])[common].X
            for s in embedded([first, second], context_model, reference=reference)
        ]
        return float(np.abs(spots[0] - spots[1]).max())

    assert distance("shared") < 1e-5
    assert distance("model") < 1e-5
    assert distance("slide") > 1e-2


def test_every_slide_has_the_same_weight(slides, context_model):
    deep = slides[1].copy()
    deep.X = deep.X * 7
    profile = [made(one) for one in embedded(slides, context_model, reference="shared")]
    again = [made(one) for one in embedded([slides[0], deep], context_model, reference="shared")]
    assert profile[0]["reference_digest"] == again[0]["reference_digest"]


def test_the_order_of_slides_spots_and_genes_does_not_matter(slides, context_model):
    expected = embedded(slides, context_model, reference="shared")
    rng = np.random.default_rng(0)
    spots = [rng.permutation(slide.n_obs) for slide in slides]
    shuffled = [
        slide[rows, rng.permutation(slide.n_vars)].copy()
        for slide, rows in zip(slides, spots, strict=True)
    ]
    found = embedded(shuffled[::-1], context_model, reference="shared")[::-1]
    for one, other, rows in zip(found, expected, spots, strict=True):
        assert made(one)["reference_digest"] == made(other)["reference_digest"]
        np.testing.assert_allclose(one.obsm["X_sagefm"], other.obsm["X_sagefm"][rows], atol=1e-5)


def test_the_profile_of_a_slide_is_a_reference(slides, context_model):
    third = simulate(60, seed=9)
    both = embedded(slides, context_model, reference=third)
    alone = slides[0].copy()
    embed(alone, context_model, reference=third)
    assert made(alone)["reference"] == made(both[0])["reference"] == "given"
    assert made(alone)["reference_genes"] >= made(both[0])["reference_genes"]
    own = slides[0].copy()
    embed(own, context_model, reference=slides[0])
    expected = context_model.embed(slides[0])
    np.testing.assert_allclose(own.obsm["X_sagefm"], expected, atol=1e-5)


def test_what_is_chosen_is_said(slides, context_model, notes):
    [first, _] = embedded(slides, context_model)
    assert made(first)["reference"] == "shared"
    assert "no more than the spots within them" in made(first)["reference_reason"]
    assert [note for note in notes if note.startswith("reference 'shared', one profile: slides")]
    assert_close(first, embedded(slides, context_model, reference="shared")[0])


def test_slides_that_were_made_in_different_ways_keep_their_own_profiles(slides, context_model):
    """A quarter of the genes is caught eight times as well on one of the slides."""
    factor = np.where(np.arange(slides[1].n_vars) % 4 == 0, 8.0, 1.0).astype(np.float32)
    slides[1].X = (slides[1].X.tocsc() @ _diagonal(factor)).tocsr()
    found = embedded(slides, context_model)
    assert made(found[1])["reference"] == "slide"
    assert "more than the spots within" in made(found[1])["reference_reason"]
    assert_close(found[1], embedded(slides, context_model, reference="slide")[1])


def _diagonal(values):
    from scipy.sparse import diags_array

    return diags_array(values)


def test_slides_with_few_genes_in_common(slide, context_model):
    genes = context_model.vocabulary.symbols[1:-1]
    halves = [slide[:, list(genes[:280])].copy(), slide[:, list(genes[200:])].copy()]
    found = embedded(halves, context_model)
    assert made(found[0])["reference"] == "slide"
    assert "only 80 genes" in made(found[0])["reference_reason"]
    with pytest.raises(InputError, match="have 80 genes of the model in common, and 100 are"):
        embedded(halves, context_model, reference="shared")


def test_spots_alone_are_not_smoothed(slide, context_model):
    one = slide.copy()
    embed(one, context_model)
    means = one.obsm["X_sagefm_spot"][nearest(one.obsm["spatial"], 15)].mean(axis=1)
    np.testing.assert_allclose(one.obsm["X_sagefm"], means, atol=1e-5)


def test_slides_are_adapted_to_together(slides, context_model):
    together = context_model.adapt(slides, seed=3)
    found = embedded(slides, together, reference="shared")
    adapted = embedded(slides, context_model, reference="shared", adapt=True, seed=3)
    for one, other in zip(adapted, found, strict=True):
        np.testing.assert_allclose(one.obsm["X_sagefm"], other.obsm["X_sagefm"], atol=1e-6)
        assert made(one)["base"] == context_model.fingerprint
        assert made(one)["fingerprint"] == together.fingerprint


def test_slides_by_name(slides, context_model):
    embed({1: slides[0], "1": slides[1]}, context_model)
    assert all("X_sagefm" in slide.obsm for slide in slides)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda s: s, {"reference": "mine"}, "'mine': is none of slide, shared, model"),
        (lambda _: [], {}, "slides: is empty"),
        (lambda _: "a.h5ad", {}, "slides: is a str, no AnnData; use sagefm.read"),
        (lambda s: [s[0], "b.h5ad"], {}, "slide 2: is a str, no AnnData"),
        (lambda s: {"x": s[0], "y": s[1][:9].copy()}, {}, "^y: .*has 9 spots"),
        (lambda s: s, {"reference": 3}, "reference=3: is none of"),
        (lambda s: s, {"reference": Path("x.h5ad")}, "reference: is a .*Path, no AnnData"),
    ],
)
def test_what_cannot_be_embedded_together(slides, context_model, spoil, options, message):
    with pytest.raises(InputError, match=message):
        embed(spoil(slides), context_model, **options)
    assert not any("X_sagefm" in slide.obsm for slide in slides)


def test_networks_without_a_profile(slides, model, context_model):
    for reference in ("shared", "model", slides[0]):
        with pytest.raises(InputError, match="the network published compares spots with no"):
            embed(slides, model, reference=reference)
    embed(slides, model)
    assert made(slides[0])["reference"] == "slide"
    blank = sagefm.SageFM.new(context_model.vocabulary, context_model.config)
    with pytest.raises(InputError, match="this model has no profile of its own"):
        embed(slides, blank, reference="model")


@pytest.fixture
def files(slides, context_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, slide in zip("ab", slides, strict=True):
        slide.write_h5ad(f"{name}.h5ad")
    context_model.save("m.safetensors")
    return {Path("out") / f"{name}.h5ad": f"{name}.h5ad" for name in "ab"}


def test_many_slides_as_in_memory(files, slides, context_model):
    for reference in (None, "shared", "model", "slide"):
        done = embed_many(files, "m.safetensors", reference=reference, workers=1)
        assert len(done.finished) + len(done.skipped) == 2
        expected = embedded(slides, context_model, reference=reference)
        for path, one in zip(files, expected, strict=True):
            written = ad.read_h5ad(path)
            assert_close(written, one)
            for entry in ("reference", "reference_digest", "reference_genes", "reference_reason"):
                if reference is None or entry != "reference_reason":
                    assert made(written).get(entry) == made(one).get(entry)


def test_a_common_profile_is_part_of_what_a_result_is_made_of(files, slides):
    def finished(files=files, **options):
        done = embed_many(files, "m.safetensors", workers=1, **options)
        assert not done.failed
        return [path.name for path in done.finished]

    assert finished(reference="shared") == ["a.h5ad", "b.h5ad"]
    assert finished(reference="shared") == []
    (Path("out") / "b.h5ad").unlink()
    assert finished(reference="shared") == ["b.h5ad"]
    simulate(60, seed=9).write_h5ad("c.h5ad")
    more = files | {Path("out") / "c.h5ad": "c.h5ad"}
    assert finished(more, reference="shared") == ["a.h5ad", "b.h5ad", "c.h5ad"]
    assert finished(reference="slide") == ["a.h5ad", "b.h5ad"]
    assert finished(reference="slide") == []


def test_a_slide_that_cannot_be_read_takes_no_part(files, tmp_path):
    Path("x.h5ad").write_bytes(b"no slide")
    done = embed_many(
        files | {Path("out") / "x.h5ad": "x.h5ad"}, "m.safetensors", reference="shared", workers=1
    )
    assert list(done.failed) == [Path("out") / "x.h5ad"]
    assert len(done.finished) == 2
    assert not embed_many(files, "m.safetensors", reference="shared", workers=1).finished


def test_on_the_command_line(files, run):
    for name in ("a.h5ad", "b.h5ad", "m.safetensors"):
        assert Path(name).exists()
    status, out, _ = run("embed", "a.h5ad", "b.h5ad", "-m", "m.safetensors", "-o", "out",
                         "--reference", "shared")  # fmt: skip
    assert status == 0
    assert "2 embedded" in out
    assert made(ad.read_h5ad("out/a.h5ad"))["reference"] == "shared"
    status, _, _ = run("embed", "a.h5ad", "-m", "m.safetensors", "-o", "a2.h5ad",
                       "--reference", "b.h5ad")  # fmt: skip
    assert status == 0
    assert made(ad.read_h5ad("a2.h5ad"))["reference"] == "given"
    for words in (["--reference", "sahred"], ["--reference", "shared", "--adapt"]):
        status, _, error = run(
            "embed", "a.h5ad", "b.h5ad", "-m", "m.safetensors", "-o", "o2", *words
        )
        assert status == 2
        assert len(error.strip().splitlines()) == 1


def test_a_slide_alone_is_compared_with_the_profile_of_the_model(context_model, slide):
    one = slide.copy()
    embed(one, context_model, reference="model")
    z = embed_by_model(context_model, context_model.prepare(slide))
    np.testing.assert_array_equal(z, one.obsm["X_sagefm"])
    assert not np.allclose(z, context_model.embed(slide))
