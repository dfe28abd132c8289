"""Subtypes of patients, against scikit-learn, finite differences and slides of a known truth."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from sagefm import InputError, SageFM
from sagefm.evaluate.cohort import Cohort
from sagefm.model import Config
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.outcomes.folds import Samples, permute
from sagefm.stats.outcomes.score import auroc
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl import subtype
from sagefm.tl.patients import SlideSource, mean, quantiles
from sagefm.tl.subtyping import label_of_slide
from sagefm.tl.subtyping._evidence import gene_slopes
from sagefm.tl.subtyping._readouts import fit_readouts
from sagefm.tl.subtyping._slides import embed_slides

POOLINGS = ["mean", "quantiles"]
RAISED = tuple(simulate(15).var_names[100:700:100])


def section(number, patient, raised):
    """A slide of 50 spots; six genes are raised in one of the two subtypes."""
    slide = simulate(50, seed=number, n_domains=2, patient=patient, slide=f"s{number}")
    columns = [slide.var_names.get_loc(gene) for gene in RAISED]
    counts = slide.X.toarray()
    extra = np.random.default_rng(number).poisson(6, (50, len(columns)))
    counts[:, columns] += extra * raised
    slide.X = csr_matrix(counts)
    return slide


@pytest.fixture(scope="module")
def slides():
    """Eight patients of two subtypes in turn, the first with two sections; a ninth is unknown."""
    owners = ["p0", "p0", *(f"p{i}" for i in range(1, 9))]
    result = {}
    for number, patient in enumerate(owners):
        raised = int(patient[1:]) % 2
        result[f"s{number}"] = slide = section(number, patient, raised)
        slide.obs["grade"] = None if patient == "p8" else ["low", "high"][raised]
    return result


@pytest.fixture(scope="module")
def net(slides):
    genes = (*RAISED, *(g for g in slides["s0"].var_names[::4] if g not in RAISED))
    return SageFM.new(Vocabulary(genes), Config(widths=(300, 256, 256, 256, 200)), seed=5)


@pytest.fixture(scope="module", params=POOLINGS)
def pooling(request):
    return request.param


@pytest.fixture(scope="module")
def written(slides):
    return {name: slide.copy() for name, slide in slides.items()}


@pytest.fixture(scope="module")
def result(written, net, pooling):
    return subtype(written, net, "grade", pooling=pooling, n_permutations=5)


def test_subtypes_are_predicted_and_compared_with_baselines(result, pooling):
    table = result.patients
    assert list(table.index) == [f"p{i}" for i in range(9)]
    assert table["n_slides"].tolist() == [2] + [1] * 8
    assert table["held_out"].tolist() == [True] * 8 + [False]
    assert table["truth"].tolist()[:8] == ["low", "high"] * 4
    assert pd.isna(table.loc["p8", "truth"])
    assert table.loc["p8", "predicted"] == "low"
    np.testing.assert_allclose(table[["probability_high", "probability_low"]].sum(axis=1), 1)
    assert result.score.name == f"{pooling} pooling"
    assert result.score["auroc"] > 0.9
    assert (result.score["n_patients"], result.score["n_permutations"]) == (8, 5)
    known = table[table["held_out"]]
    assert result.score["accuracy"] == (known["truth"] == known["predicted"]).mean()
    assert list(result.baseline.index) == ["pseudobulk PCA", "most frequent class"]
    assert result.baseline.loc["pseudobulk PCA", "p"] >= 1 / 6
    constant = result.baseline.loc["most frequent class"]
    assert constant[["auroc", "accuracy", "balanced_accuracy"]].tolist() == [0.5, 0.5, 0.5]
    assert np.isnan(constant["p"])


def test_the_evidence_of_spots_adds_up_to_the_log_odds_of_the_patient(result, written):
    table = result.patients
    owner = {name: slide.obs["patient"].iloc[0] for name, slide in written.items()}
    sums = result.evidence.groupby(result.evidence["slide"].map(owner))["evidence"].sum()
    np.testing.assert_allclose(sums, table["log_odds"] - table["intercept"], atol=1e-5)
    odds = np.log(table["probability_high"] / table["probability_low"])
    np.testing.assert_allclose(odds.abs(), table["log_odds"], atol=1e-6)
    assert sums.abs().max() > 0.5


def test_evidence_is_written_into_the_slides(result, written, pooling, net):
    # The slides hold what the last call wrote, which is that of this pooling.
    for name, slide in written.items():
        own = result.evidence[result.evidence["slide"] == name]
        assert own["spot"].tolist() == slide.obs_names.tolist()
        np.testing.assert_array_equal(slide.obs["sagefm_subtype_evidence"], own["evidence"])
        made = slide.uns["sagefm"]["subtype"]
        assert (made["pooling"], made["subtype_key"]) == (pooling, "grade")
        assert made["fingerprint"] == net.fingerprint
        assert made["predicted"]["p8"] == "low"


def test_the_genes_that_were_planted_lead(result):
    high = result.genes[result.genes["class"] == "high"].reset_index(drop=True)
    low = result.genes[result.genes["class"] == "low"].set_index("gene")
    assert (high["weight"].abs().diff().dropna() <= 0).all()
    np.testing.assert_allclose(high["measured"], 1)
    assert set(high.loc[:3, "gene"]) <= set(RAISED)
    assert (high.loc[:3, "weight"] > 0).all()
    np.testing.assert_allclose(low.loc[high["gene"], "weight"], -high["weight"], atol=1e-9)
    np.testing.assert_allclose(high["weight"], high["slope"] * high["spread"])


def fit(slides, net, pooling):
    """Readouts of eight patients of two classes in turn, then the one of all."""
    source = SlideSource(slides, None, None, "patient", None)
    embedded = embed_slides(
        source, net, "grade", keep_spots=pooling != "mean", progress=lambda _: None
    )
    training = [one for one in embedded if one.subtype is not None]
    patients = np.array([int(one.patient[1:]) for one in training])
    truth = np.arange(8) % 2
    samples = Samples(list("abcdefgh"), np.arange(8), truth, ["a", "b"])
    embeddings = [one.z for one in training]
    return fit_readouts(embeddings, patients, samples, truth[None], pooling, 0)[1]


def test_slopes_of_genes_are_those_of_finite_differences(slides, net, pooling):
    exact = SageFM.new(net.vocabulary, net.config, seed=5)
    exact.network.double()
    readout = fit(slides, net, pooling)[-1]
    aligned = net.prepare(slides["s3"])
    slopes = gene_slopes(net, aligned, net.embed(aligned), readout)
    np.testing.assert_allclose(slopes[1], -slopes[0])
    dense = torch.from_numpy(aligned.log1p.toarray()).double()
    neighbors = torch.from_numpy(aligned.neighbors)

    def log_odds(gene, step):
        moved = dense.clone()
        moved[:, gene] += step
        with torch.no_grad():
            pooled = exact.network.pool(moved @ exact.network.first, neighbors)
            logits = readout.contributions(exact.network.embed(pooled)).sum(dim=0)
        return float(logits[0] - logits[1])

    genes = np.argsort(-np.abs(slopes[0]))[:4]
    differences = [(log_odds(gene, 1e-6) - log_odds(gene, -1e-6)) / 2e-6 for gene in genes]
    np.testing.assert_allclose(slopes[0][genes], differences, rtol=2e-3)


def test_a_held_out_patient_does_not_affect_its_fit(slides, net, pooling):
    """Another patient in its place changes the readouts of all folds but the one without it."""
    other = dict(slides) | {"s3": section(77, "p2", 1)}
    other["s3"].obs["grade"] = "low"
    one, two = ([r.weights for r in fit(given, net, pooling)] for given in (slides, other))
    np.testing.assert_allclose(one[2], two[2], rtol=1e-5, atol=1e-7)
    assert all(np.abs(one[i] - two[i]).max() > 1e-4 for i in (0, 1, 3, 8))


def test_the_same_seed_gives_the_same(result, slides, net, pooling):
    again = subtype(slides_of(slides), net, "grade", pooling=pooling, n_permutations=5)
    pd.testing.assert_frame_equal(again.patients, result.patients)
    pd.testing.assert_series_equal(again.score, result.score)
    pd.testing.assert_frame_equal(again.evidence, result.evidence)
    assert str(again) == str(result)


def slides_of(slides):
    return {name: slide.copy() for name, slide in slides.items()}


def test_in_plain_words(result, pooling):
    lines = str(result).splitlines()
    assert lines[0] == (
        "8 patients (high 4, low 4), one left out at a time; 1 without a subtype predicted"
    )
    p = result.score["p"]
    verdict = "more than chance" if p < 0.05 else "no more than chance"
    assert lines[1].startswith(f"{pooling} pooling: AUROC {result.score['auroc']:.3f} (")
    assert lines[1].endswith(f"; {verdict}: p = {p:.2g} (5 permutations)")
    assert lines[3] == "most frequent class: AUROC 0.500, accuracy 0.500 (balanced 0.500)"
    worse = result.score["auroc"] <= result.baseline.loc["pseudobulk PCA", "auroc"]
    assert (len(lines) == 5) == worse


# Without a network: spots of patients whose truth is known.


def embeddings_of(kind, n=8, spots=80, width=20):
    rng = np.random.default_rng(1)
    embeddings = []
    for patient in range(n):
        z, side = rng.normal(size=(spots, width)), patient % 2
        z[:, :2] *= 3
        if kind == "mean":
            z[:, 0] += 6 * side
        elif kind == "spread":
            z[:, 0] *= 1 + 2 * side
        elif kind == "region":  # a tenth of the spots, marked by one column, differs in another
            z[: spots // 10, 4] += 8
            z[: spots // 10, 5] += 3 * (2 * side - 1)
        z += 0.3 * rng.normal(size=width)
        embeddings.append(z.astype(np.float32))
    truth = np.arange(n) % 2
    return embeddings, Samples([str(i) for i in range(n)], np.arange(n), truth, ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        ("mean", POOLINGS),
        ("spread", ["quantiles"]),
        ("region", ["quantiles"]),
        ("nothing", []),
    ],
)
def test_what_each_pooling_can_distinguish(kind, by):
    embeddings, samples = embeddings_of(kind)
    for pooling in POOLINGS:
        probabilities, _ = fit_readouts(
            embeddings, samples.patients, samples, samples.truth[None], pooling, 0
        )
        area = auroc(samples.truth, probabilities[0])
        assert (area > 0.9) == (pooling in by), (pooling, area)


def test_labelings_are_fitted_as_if_alone(pooling):
    embeddings, samples = embeddings_of("mean", n=6, spots=30)
    labelings = permute(samples.truth, 1, 0)
    given = (embeddings, samples.patients, samples)
    together = fit_readouts(*given, labelings, pooling, 0)[0]
    alone = [fit_readouts(*given, one[None], pooling, 0)[0][0] for one in labelings]
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_bands_approximate_quantiles():
    z = torch.from_numpy(np.random.default_rng(0).permutation(np.arange(1000.0))[:, None])
    same = WhitenedPCA(np.zeros(1), np.eye(1))
    np.testing.assert_allclose(quantiles(z, same).sum(dim=0), [99.5, 499.5, 899.5])
    np.testing.assert_allclose(mean(z).sum(dim=0), [499.5])
    assert quantiles(z[:16], same).sum(dim=0)[1] == z[:16].sort(dim=0).values[6:10].mean()


# What users give.


def test_subtypes_from_a_table_and_three_classes(slides, net):
    words = dict(zip(slides, "aabcabcabc", strict=True)) | {"another": "z"}
    result = subtype(slides_of(slides), net, words, n_permutations=1)
    assert result.score["n_patients"] == 9
    assert {"probability_a", "probability_b", "probability_c"} <= set(result.patients)
    row = result.patients.loc["p3"]
    logs = np.log(row[[f"probability_{c}" for c in "abc"]].astype(float))
    others = logs.drop(f"probability_{row['predicted']}").mean()
    assert row["log_odds"] == pytest.approx(logs[f"probability_{row['predicted']}"] - others)
    by_gene = result.genes.pivot(index="gene", columns="class", values="weight")
    np.testing.assert_allclose(by_gene.sum(axis=1), 0, atol=1e-9)


def test_one_object_with_all_slides(slides, net):
    both = ad.concat(slides, label="lane", index_unique="-")
    one = subtype(both, net, "grade", n_permutations=1, slide_key="lane")
    two = subtype(slides_of(slides), net, "grade", n_permutations=1)
    pd.testing.assert_frame_equal(one.patients, two.patients)
    assert one.evidence["slide"].unique().tolist() == list(slides)
    np.testing.assert_allclose(both.obs["sagefm_subtype_evidence"], two.evidence["evidence"])


def test_slides_that_are_read_one_at_a_time(slides, net):
    cohort = Cohort(slides_of(slides))
    patients = {name: cohort.patient(name) for name in cohort}
    one = subtype(cohort, net, "grade", patients=patients, n_permutations=1)
    two = subtype(slides_of(slides), net, "grade", n_permutations=1)
    pd.testing.assert_frame_equal(one.evidence, two.evidence)


def test_a_slide_without_subtype_of_a_known_patient_is_not_trained_on(slides, net):
    words = {name: slide.obs["grade"].iloc[0] for name, slide in slides.items()}
    result = subtype(slides_of(slides), net, words | {"s1": ""}, n_permutations=1)
    without = {name: slide for name, slide in slides_of(slides).items() if name != "s1"}
    alone = subtype(without, net, "grade", n_permutations=1)
    pd.testing.assert_frame_equal(result.patients, alone.patients)
    pd.testing.assert_frame_equal(result.genes, alone.genes)
    assert result.patients.loc["p0", "n_slides"] == 1
    assert (result.evidence["slide"] == "s1").sum() == 50


def test_genes_that_some_slides_lack_are_marked(slides, net):
    some = slides_of(slides)
    gene = net.vocabulary[20]
    some["s3"] = some["s3"][:, some["s3"].var_names != gene].copy()
    result = subtype(some, net, "grade", n_permutations=1)
    measured = result.genes.groupby("gene")["measured"].first()
    assert measured[gene] == pytest.approx(8 / 9)
    assert (measured.drop(gene) > 0.999).all()


def broken(slides, change):
    some = slides_of(slides)
    for slide in some.values():
        change(slide)
    return some


@pytest.mark.parametrize(
    ("change", "how", "said"),
    [
        (lambda s: s.obs.__setitem__("grade", "low"), {}, "grade: two classes or more"),
        (lambda s: s.obs.__setitem__("grade", None), {}, r"obs\['grade'\]: no slide has a value"),
        (
            lambda s: setattr(s, "obs", s.obs.drop(columns="grade")),
            {},
            "no slide has such a column",
        ),
        (lambda s: None, {"key": {"s0": "low"}}, "3 patients, are needed, but there is low 1;"),
        (lambda s: None, {"key": {}}, "subtypes: no slide has a value"),
        (
            lambda s: None,
            {"key": {"s0": "a", "s1": "b"}},
            r"subtypes: the slides of patient p0 have several \(a, b\)",
        ),
        (lambda s: None, {"key": "domain"}, r"s0: obs\['domain'\] has several values"),
        (
            lambda s: None,
            {"key": dict(zip([f"s{i}" for i in range(10)], "aabababacc", strict=True))},
            "but there is a 4, b 3, c 2; add patients",
        ),
        (lambda s: None, {"pooling": "max"}, "pooling='max': choose one of mean, quantiles$"),
        (lambda s: None, {"pooling": "attention"}, "'attention': choose one of mean, quantiles$"),
        (lambda s: None, {"n_permutations": 0}, "n_permutations=0: give"),
        (lambda s: setattr(s, "X", s.X.log1p()), {}, "s0: X holds .*log-normalized"),
        (lambda s: None, {"slide_key": "lane"}, "lane"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(slides, net, change, how, said):
    some = broken(slides, change)
    with pytest.raises(InputError, match=said) as caught:
        subtype(some, net, **{"key": "grade"} | how)
    assert "\n" not in str(caught.value)
    assert all("sagefm_subtype_evidence" not in slide.obs for slide in some.values())


def test_a_duplicated_slide_is_refused(slides, net):
    twice = slides_of(slides)
    twice["copy"] = twice["s4"].copy()
    twice["copy"].obs["patient"] = "somebody"
    with pytest.raises(InputError, match="copy: is the same slide as s4"):
        subtype(twice, net, "grade")
    with pytest.raises(InputError, match="is empty"):
        subtype({}, net, "grade")


def test_labels(slides):
    slide = slides["s0"].copy()
    slide.obs["some"] = pd.Categorical([None, " x ", *[""] * 48])
    assert label_of_slide("s", slide, "some") == "x"
    slide.obs["some"] = np.nan
    assert label_of_slide("s", slide, "some") is None
    slide.obs["some"] = 3
    assert label_of_slide("s", slide, "some") == "3"
