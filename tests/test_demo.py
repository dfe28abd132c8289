import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError, demo

METHODS = [
    "sagefm", "sagefm, random weights", "PCA", "PCA of 7-spot means", "PCA of 15-spot means",
]  # fmt: skip


@pytest.mark.slow
def test_the_whole_story(tmp_path, monkeypatch):
    changes = ("train.max_epochs=3", "data.genes=400", 'data.validation=["patient 5"]')
    monkeypatch.setattr(demo, "_SPOTS", 500)
    monkeypatch.setattr(demo, "_CHANGES", changes)
    lines = []
    demo.run(tmp_path / "demo", tell=lines.append)

    slides = [f"patient_{number}.h5ad" for number in range(1, 7)]
    others = ["domains.png", "model.safetensors", "scores.csv", "training.png"]
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == sorted(slides + others)

    scores = pd.read_csv(tmp_path / "demo" / "scores.csv")
    assert scores["embedding"].unique().tolist() == METHODS
    assert (scores.groupby("embedding")["seed"].nunique() == 5).all()
    assert len(scores) == 25
    ari = scores.groupby("embedding")["ari"].mean()
    assert ari["PCA of 7-spot means"] > 0.3
    assert ari["PCA of 15-spot means"] > 0.3
    assert ari["PCA of 7-spot means"] > ari["PCA"]

    unseen = ad.read_h5ad(tmp_path / "demo" / "patient_6.h5ad")
    model = sagefm.SageFM.load(tmp_path / "demo" / "model.safetensors")
    assert len(model.vocabulary) == 400
    np.testing.assert_allclose(model.embed(unseen), unseen.obsm["X_sagefm"], atol=1e-5)
    assert unseen.obs["sagefm_domain"].nunique() == unseen.obs["domain"].nunique() == 5
    assert set(unseen.uns["sagefm"]) >= {"embed", "domains"}
    assert unseen.obs["patient"].unique().tolist() == ["patient 6"]

    for name in ("domains.png", "training.png"):
        picture = plt.imread(tmp_path / "demo" / name)[..., :3]
        assert picture.shape[1] > 700
        assert (picture < 1).any(axis=2).mean() > 0.1 or name == "training.png"
        assert picture.std() > 0.05
    assert not plt.get_fignums()

    report = "\n".join(lines)
    assert [line[:2] for line in lines if line[:1].isdigit()] == ["1.", "2.", "3.", "4."]
    for name in METHODS:
        mean = f"{ari[name]:.3f}"
        assert any(line.strip().startswith(name) and mean in line for line in lines), report


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_SPOTS", 60)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; choose another place"):
        demo.run(tmp_path / "file" / "demo", tell=lambda line: None)
