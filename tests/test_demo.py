import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError, demo

METHODS = ["sagefm", "PCA", "PCA of 15-spot means"]


@pytest.mark.slow
def test_the_whole_story(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_SPOTS", 800)
    monkeypatch.setattr(demo, "_IMPUTED", 40)
    lines = []
    demo.run(tmp_path / "demo", progress=lines.append)
    report = "\n".join(lines)

    pictures = ["domains.png", "imputed.png", "perturbed.png", "response.png"]
    tables = {name: pd.read_csv(tmp_path / "demo" / f"{name}.csv") for name in
              ("domains", "imputed", "perturbed")}  # fmt: skip
    expected = ["slide.h5ad", *pictures, *(f"{name}.csv" for name in tables)]
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == sorted(expected)
    assert [line[:2] for line in lines if line[:1].isdigit()] == ["1.", "2.", "3.", "4."]
    assert "Coexpression in the simulated tissue is random" in report

    scores = tables["domains"]
    assert scores["embedding"].unique().tolist() == METHODS
    ari = scores.groupby("embedding")["ari"].mean()
    assert ari["PCA of 15-spot means"] > ari["PCA"]
    for name in METHODS:
        said = f"{name:<24}adjusted Rand index {ari[name]:.2f}"
        assert any(line.strip().startswith(said) for line in lines), report

    slide = ad.read_h5ad(tmp_path / "demo" / "slide.h5ad")
    model = sagefm.SageFM.load("default")
    np.testing.assert_allclose(model.embed(slide), slide.obsm["X_sagefm"], atol=1e-4)
    assert slide.obs["sagefm_domain"].nunique() == slide.obs["domain"].nunique() == 5
    assert len(tables["imputed"]) == slide.obsm["sagefm_imputed"].shape[1] == 40
    assert f"masked counts {tables['imputed']['r_model'].median():.2f};" in report

    pairs = tables["perturbed"]
    truth = slide.uns["simulation"]["couplings"].merge(pairs, on=["ligand", "target"])
    assert len(truth) == len(pairs) >= 10  # most of the known pairs are in the vocabulary
    assert set(truth["strength"]) == {0.0, 1.0}
    assert slide.obsm["sagefm_response"].shape == (800, 1)

    for name in pictures:
        picture = plt.imread(tmp_path / "demo" / name)[..., :3]
        assert picture.shape[1] > 700
        assert (picture < 1).any(axis=2).mean() > 0.05
        assert picture.std() > 0.05
    assert not plt.get_fignums()


def test_most_simulated_genes_are_known_to_the_model():
    vocabulary = set(sagefm.SageFM.load("default", device="cpu").vocabulary.symbols)
    genes = sagefm.pp.simulate(20).var_names
    assert genes.isin(vocabulary).mean() > 0.7


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; choose another place"):
        demo.run(tmp_path / "file" / "demo", progress=lambda line: None)
