"""A HEST-1k download: which samples are taken, and what is said about them."""

import shutil

import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.simulate import simulate
from sagefm.pretrain.corpus import Corpus, build
from sagefm.pretrain.folds import folds_of
from sagefm.pretrain.hest import hest_slides, is_hest

ROW = {
    "dataset_title": "Atlas", "id": "X1", "organ": "Brain", "disease_state": "Cancer",
    "oncotree_code": "GBM", "species": "Homo sapiens", "patient": "Patient 1",
    "st_technology": "Visium", "license": "CC BY 4.0", "study_link": "https://study",
    "download_page_link1": " https://page", "subseries": "section 1",
}  # fmt: skip


def download(folder, *changes, version="v1_1_0"):
    """A download with a row (and an empty file) per change of `ROW`."""
    (folder / "st").mkdir(exist_ok=True)
    rows = [{**ROW, **change} for change in changes]
    table = folder / f"HEST_{version}.csv"
    pd.DataFrame(rows).to_csv(table, index=False, encoding="utf-8-sig")
    for row in rows:
        (folder / "st" / f"{row['id']}.h5ad").touch()
    return folder


def sample(name, *, ids=False, **options):
    """A slide as HEST keeps it: coordinates three times, names as the authors had them."""
    slide = simulate(60, slide=name, **options)
    slide.obs = slide.obs[["array_row", "array_col"]].assign(in_tissue=1)
    slide.obs["pxl_col_in_fullres"] = slide.obsm["spatial"][:, 0]
    slide.obs["pxl_row_in_fullres"] = slide.obsm["spatial"][:, 1]
    del slide.uns["simulation"]
    if ids:
        known = known_gene_names().id_of_symbol
        slide.var_names = [known.get(symbol, symbol) for symbol in slide.var_names]
    return slide


def test_the_real_table(shared, tmp_path, caplog):
    shutil.copy(shared / "hest" / "HEST_v1_1_0.csv", tmp_path)
    (tmp_path / "st").mkdir()
    with pytest.raises(InputError, match="none of its 421 human Visium samples has a file"):
        hest_slides(tmp_path)
    for sample_id in pd.read_csv(tmp_path / "HEST_v1_1_0.csv")["id"]:
        (tmp_path / "st" / f"{sample_id}.h5ad").touch()
    slides, facts = hest_slides(tmp_path)
    assert is_hest(tmp_path)
    assert len(slides) == len(facts) == facts["slide"].nunique() == 421
    assert facts["organ"].nunique() == 16
    assert set(facts["technology"]) == {"Visium"}
    assert (facts["patient"] != "").all()
    row = facts.set_index("slide").loc["TENX65"]
    assert row["patient"] == "Human Ovarian Cancer, 11 mm Capture Area (FFPE)"
    assert row["disease"] == "Cancer (HGSOC)"
    assert row["source"].startswith("https://www.10xgenomics.com/datasets/human-ovarian-cancer")
    # Blanks are no patient: 188 cells are empty, 114 hold spaces.
    assert "302 of 421 samples name no patient" in caplog.text
    spots = pd.read_csv(tmp_path / "HEST_v1_1_0.csv").set_index("id")["spots_under_tissue"]
    table = facts.set_index("slide").assign(spots=spots)
    sizes = table["spots"].groupby(folds_of(table, 5)).sum()
    assert sizes.sum() == 1_001_989
    assert sizes.max() < 1.05 * sizes.min()
    # Two targeted panels and two sections of one block have titles of their own.
    by_10x = table[table["dataset"] == "10x Genomics, Breast"]
    assert len(by_10x) == 7


def test_only_human_visium(tmp_path):
    download(
        tmp_path,
        {},
        {"id": "X2", "st_technology": "Visium HD"},
        {"id": "X3", "species": "Mus musculus"},
        {"id": "X4", "st_technology": "Xenium"},
    )
    slides, facts = hest_slides(tmp_path)
    assert slides == {"X1": tmp_path / "st" / "X1.h5ad"}
    assert facts.to_dict("records") == [
        {
            "slide": "X1", "patient": "Atlas: Patient 1", "dataset": "Atlas", "organ": "Brain",
            "disease": "Cancer (GBM)", "technology": "Visium", "license": "CC BY 4.0",
            "source": "https://study",
        }
    ]  # fmt: skip


def test_patients_are_of_their_dataset(tmp_path):
    download(
        tmp_path,
        {},
        {"id": "X2", "dataset_title": "Other"},
        {"id": "X3", "patient": "   "},
        {"id": "X4", "patient": "", "subseries": ""},
    )
    assert hest_slides(tmp_path)[1]["patient"].tolist() == [
        "Atlas: Patient 1", "Other: Patient 1", "Atlas: section 1", "Atlas",
    ]  # fmt: skip


def test_a_supplement_and_all_that_10x_publishes_of_an_organ_are_one_dataset(tmp_path):
    page = "https://www.10xgenomics.com/datasets/some-slide"
    download(
        tmp_path,
        {"dataset_title": "Atlas: Supplementary Data"},
        {"id": "X2", "dataset_title": "Human Heart", "organ": "Heart", "download_page_link1": page},
        {
            "id": "X3",
            "dataset_title": "Heart (FFPE)",
            "organ": "Heart",
            "download_page_link1": page,
        },
        {"id": "X4", "dataset_title": "Human Lung", "organ": "Lung", "download_page_link1": page},
    )
    assert hest_slides(tmp_path)[1]["dataset"].tolist() == [
        "Atlas", "10x Genomics, Heart", "10x Genomics, Heart", "10x Genomics, Lung",
    ]  # fmt: skip


def test_what_stands_in_the_table_may_be_missing(tmp_path, caplog):
    download(tmp_path, {}, {"id": "X2", "oncotree_code": "", "study_link": ""})
    (tmp_path / "st" / "X1.h5ad").unlink()
    slides, facts = hest_slides(tmp_path)
    assert list(slides) == ["X2"]
    assert "1 of 2 human Visium samples have no file and are left out (X1)" in caplog.text
    assert facts["disease"].tolist() == ["Cancer"]
    assert facts["source"].tolist() == ["https://page"]


def test_the_latest_table_counts(tmp_path):
    download(tmp_path, {"organ": "old"}, version="v1_9_0")
    download(tmp_path, {"organ": "new"}, version="v1_10_0")
    assert hest_slides(tmp_path)[1]["organ"].tolist() == ["new"]


def test_what_is_no_download(tmp_path):
    assert not is_hest(tmp_path)
    with pytest.raises(InputError, match="is no HEST-1k download"):
        hest_slides(tmp_path)
    download(tmp_path, {})
    table = tmp_path / "HEST_v1_1_0.csv"
    pd.read_csv(table).drop(columns="organ").to_csv(table, index=False)
    with pytest.raises(InputError, match=r"HEST_v1_1_0.csv: lacks the columns organ"):
        hest_slides(tmp_path)


def test_a_download_becomes_a_corpus(shared, tmp_path):
    """Also of samples that name their genes by Ensembl id, and without coordinates in obsm."""
    download(tmp_path, {}, {"id": "X2", "patient": "Patient 2"}, {"id": "X3", "organ": "Heart"})
    symbols, ids = sample("X1", seed=1), sample("X2", seed=1, ids=True)
    bare = sample("X3", seed=2)
    del bare.obsm["spatial"]
    for name, slide in {"X1": symbols, "X2": ids, "X3": bare}.items():
        slide.write_h5ad(tmp_path / "st" / f"{name}.h5ad")
    slides, facts = hest_slides(tmp_path)
    build(slides, tmp_path / "c", facts=facts)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.table["patient"].tolist() == [
        "Atlas: Patient 1", "Atlas: Patient 2", "Atlas: Patient 1",
    ]  # fmt: skip
    assert corpus.table["organ"].tolist() == ["Brain", "Brain", "Heart"]
    both = [corpus.read(name, 0, 60).log1p for name in ("X1", "X2")]
    named = [gene in known_gene_names().id_of_symbol for gene in corpus.vocabulary]
    assert sum(named) > 1000
    assert (both[0][:, named] != both[1][:, named]).nnz == 0
