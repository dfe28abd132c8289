import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm._uns import texts
from sagefm.pp import from_mudata, read, simulate, to_mudata
from sagefm.pp.modalities import modality

mudata = pytest.importorskip("mudata")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*var_names"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mudata"),
]


def joined(**parts):
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(parts)


@pytest.fixture(scope="module")
def slide():
    slide = simulate(60, seed=1, n_proteins=4)
    genera = pd.DataFrame({"Fusobacterium": np.arange(60.0), "Other": 1.0}, slide.obs_names)
    genera.iloc[:10] = np.nan
    slide.obsm["genera"] = genera
    return slide


@pytest.fixture(scope="module")
def whole(slide):
    return to_mudata(slide)


def test_each_modality_has_its_measured_spots(slide, whole):
    assert {name: part.shape for name, part in whole.mod.items()} == {
        "rna": slide.shape, "prot": (60, 7), "genera": (50, 2),
    }  # fmt: skip
    assert "antibody_capture" in slide.obsm
    assert "antibody_capture" not in whole["rna"].obsm
    np.testing.assert_array_equal(whole["genera"].obsm["spatial"], slide.obsm["spatial"][10:])


@pytest.mark.parametrize("source", ["object", "file", "from_mudata"])
def test_a_slide_comes_back(slide, whole, source, tmp_path):
    if source == "file":
        whole.write(tmp_path / "s.h5mu")
    again = {
        "object": lambda: read(whole),
        "file": lambda: read(tmp_path / "s.h5mu"),
        "from_mudata": lambda: from_mudata(whole),
    }[source]()
    assert (again.X != slide.X).nnz == 0
    np.testing.assert_array_equal(again.obsm["spatial"], slide.obsm["spatial"])
    for name in ("protein", "genera"):
        one, other = modality(again, name), modality(slide, name)
        pd.testing.assert_frame_equal(one.counts, other.counts, check_dtype=False)
        pd.testing.assert_frame_equal(one.controls, other.controls, check_dtype=False)
    assert modality(again, "protein").key == "antibody_capture"


def test_coordinates_of_the_whole_are_used(slide, whole):
    parts = {name: part.copy() for name, part in whole.mod.items()}
    for part in parts.values():
        del part.obsm["spatial"]
    bare = joined(**parts)
    bare.obsm["spatial"] = (
        pd.DataFrame(slide.obsm["spatial"], slide.obs_names, ["x", "y"])
        .loc[bare.obs_names]
        .to_numpy()
    )
    np.testing.assert_array_equal(read(bare).obsm["spatial"], slide.obsm["spatial"])
    assert "spatial" not in bare["rna"].obsm


def test_a_modality_without_counts_is_left_out_with_a_note(slide):
    atac = slide[:, slide.X.sum(axis=0).A1 > 50].copy()
    atac.X = atac.X.log1p()
    again = read(joined(rna=slide.copy(), atac=atac))
    notes = "\n".join(texts(again.uns["sagefm"]["read"]["told"]))
    assert "the modality 'atac' is left out" in notes
    assert "atac" not in again.obsm


def test_a_modality_never_replaces_a_slot_of_the_slide(slide):
    part = ad.AnnData(slide.obsm["genera"].fillna(0).astype(np.float32))
    names = ["spatial", "sagefm_x", "prot", "adt"]
    again = read(joined(rna=slide[:, :50].copy(), **{name: part.copy() for name in names}))
    np.testing.assert_array_equal(again.obsm["spatial"], slide.obsm["spatial"])
    assert list(modality(again, "protein").counts) == list(modality(slide, "protein").counts)
    notes = "\n".join(texts(again.uns["sagefm"]["read"]["told"]))
    assert all(f"the modality '{name}' is left out" in notes for name in names)


def test_a_table_called_as_the_genes(slide):
    named = slide.copy()
    named.obsm["rna"] = named.obsm.pop("genera")
    with pytest.raises(InputError, match="would take the place of the genes"):
        to_mudata(named)


def test_proteins_in_an_array_are_a_modality(slide):
    slide = slide.copy()
    slide.obsm["protein_counts"] = slide.obsm["antibody_capture"].to_numpy()
    del slide.obsm["antibody_capture"]
    assert "protein_counts_1" in to_mudata(slide)["prot"].var_names


def test_what_is_no_mudata(slide):
    with pytest.raises(InputError, match="AnnData is no MuData"):
        from_mudata(slide)
    with pytest.raises(InputError, match="holds the modalities one, two"):
        read(joined(one=slide.copy(), two=slide.copy()))


def test_a_protein_may_be_called_as_its_gene(slide):
    named = slide.copy()
    table = named.obsm["antibody_capture"]
    named.obsm["antibody_capture"] = table.rename(columns=lambda name: name.removesuffix(".1"))
    whole = to_mudata(named)
    whole.var_names_make_unique()
    assert all(whole["prot"].var_names.str.startswith("prot:"))
    again = read(whole)
    assert list(modality(again, "protein").counts) == list(modality(named, "protein").counts)
    assert again.var_names.equals(slide.var_names)
