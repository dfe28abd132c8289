import pandas as pd
import pytest

from sagefm.pp.simulate import simulate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A slide with proteins, and one whose genera are in a table of their own."""
    folder = tmp_path_factory.mktemp("cross")
    slide = simulate(120, n_proteins=4, seed=4)
    slide.write_h5ad(folder / "a.h5ad")
    del slide.obsm["antibody_capture"]
    slide.write_h5ad(folder / "b.h5ad")
    counts = slide.to_df().iloc[:, :3].astype(int).add_prefix("genus_")
    counts.iloc[::-1].to_csv(folder / "genera.csv")
    return folder


def test_a_table_and_pictures_are_written(run, folder, tmp_path):
    words = (folder / "a.h5ad", "-o", "a.csv", "--features", "ID1.1", "--plot", "maps")
    status, out, err = run("cross", *words)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "a.csv", index_col="feature")
    assert list(table.index) == ["ID1.1"]
    assert table["r"].notna().all()
    assert "a.csv: 1 feature, " in out
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"maps.png", "overview.png"}
    (tmp_path / "b.csv").write_text("mine")
    status, _, err = run("cross", folder / "a.h5ad", "-o", "b.csv")
    assert status == 2
    assert "--overwrite" in err


def test_counts_of_a_table(run, folder, tmp_path):
    words = ("--with", "genera", "--counts", f"genera={folder / 'genera.csv'}")
    status, _, err = run("cross", folder / "b.h5ad", *words, "-o", "b.csv")
    assert status == 0, err
    names = set(pd.read_csv(tmp_path / "b.csv")["feature"])
    assert names
    assert all(name.startswith("genus_") for name in names)


def test_several_slides_are_fitted_together(run, folder, tmp_path):
    (folder / "a2.h5ad").write_bytes((folder / "a.h5ad").read_bytes())
    words = (folder / "a.h5ad", folder / "a2.h5ad", "--features", "ID1.1", "-o", "both.csv")
    status, _, err = run("cross", *words)
    assert status == 0, err
    assert (pd.read_csv(tmp_path / "both.csv")["n_spots"] == 240).all()


@pytest.mark.parametrize(
    ("out", "fault"), [("both.csv", "spots of the same name"), ("both", "a table is of one slide")]
)
def test_one_table_is_not_of_several_slides(run, folder, tmp_path, out, fault):
    (folder / "b2.h5ad").write_bytes((folder / "b.h5ad").read_bytes())
    words = ("--with", "genera", "--counts", f"genera={folder / 'genera.csv'}", "-o", out)
    status, _, err = run("cross", folder / "b.h5ad", folder / "b2.h5ad", *words)
    assert status == 2
    assert fault in err.splitlines()[-1]
    assert not (tmp_path / out).exists()


def test_bad_input_is_one_line(run, folder):
    status, _, err = run("cross", folder / "b.h5ad", "-o", "c.csv")
    assert status == 2
    assert "no second modality 'protein'" in err.splitlines()[-1]
    status, _, err = run("cross", folder / "a.h5ad", "-o", "c.csv", "--features", "NOT1A")
    assert status == 2
    assert "there is no NOT1A" in err.splitlines()[-1]
