"""Training on a HEST-1k download, leaving a fold out: the commands and the script."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from sagefm import InputError, SageFM
from sagefm.pp.pseudonyms import pseudonym
from sagefm.pp.simulate import simulate

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "atlas.py"
TINY = [
    "--set", "data.genes=40", "--set", "network.widths=[8,8,8,4]", "--set", "train.max_epochs=1",
    "--set", "data.folds=2",
]  # fmt: skip
DATASETS = {"X1": "One", "X2": "One: Supplementary Data", "X3": "Two", "X4": "Three"}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("atlas", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hest(tmp_path, monkeypatch):
    """A download of four slides of three datasets, and a file that is damaged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hest" / "st").mkdir(parents=True)
    genes = simulate(15).var_names[:60]
    for seed, name in enumerate(DATASETS):
        slide = simulate(70, genes=genes, depth=300, seed=seed, slide=name)
        del slide.obs["patient"], slide.uns["simulation"]
        slide.write_h5ad(tmp_path / "hest" / "st" / f"{name}.h5ad")
    (tmp_path / "hest" / "st" / "X5.h5ad").write_text("not a slide")
    rows = [
        {"id": name, "dataset_title": title, "organ": "Skin" if name == "X4" else "Lung"}
        for name, title in {**DATASETS, "X5": "Four"}.items()
    ]
    same = {"species": "Homo sapiens", "st_technology": "Visium", "license": "CC0"}
    empty = ("subseries", "patient", "disease_state", "oncotree_code", "study_link",
             "download_page_link1")  # fmt: skip
    table = pd.DataFrame(rows).assign(**same, **dict.fromkeys(empty, ""))
    table.to_csv(tmp_path / "hest" / "HEST_v1_1_0.csv", index=False)
    return tmp_path / "hest"


def test_two_commands_train_without_a_fold(run, hest):
    status, _, err = run("corpus", "build", "hest", "-o", "corpus")
    assert status == 2  # a slide is left out, and the others are there
    assert "1 of 5 slides were left out of corpus; the first: X5: " in err
    command = ["pretrain", "corpus", "--recipe", "atlas", *TINY]
    assert run(*command, "--fold", "1", "-o", "one.safetensors")[0] == 0
    assert run(*command, "--fold", "2", "-o", "two.safetensors")[0] == 0
    assert run(*command, "-o", "all.safetensors")[0] == 0
    one, two, everything = (
        set(SageFM.load(f"{name}.safetensors").provenance["slides"])
        for name in ("one", "two", "all")
    )
    assert one | two == everything == set(map(pseudonym, DATASETS))
    assert not one & two
    study = {pseudonym("X1"), pseudonym("X2")}
    assert study <= one or study <= two  # a study and its supplement
    status, _, err = run(*command, "--fold", "3", "-o", "three.safetensors")
    assert (status, err) == (2, "error: atlas: data.fold: there are 2 folds (data.folds)\n")


def test_the_script_builds_trains_and_scores_a_fold(script, hest, monkeypatch, capsys):
    command = ["hest", "-o", "out", "--fold", "1", *TINY]
    script.main(command)
    folds = pd.read_csv("out/folds.csv", index_col="slide")
    tested = folds.index[folds["fold"] == 1]
    model = SageFM.load("out/fold-1.safetensors")
    assert set(model.provenance["slides"]) == set(map(pseudonym, set(folds.index) - set(tested)))
    left_out = pd.read_csv("out/left_out.csv", index_col="slide")["why"]
    assert left_out.index.tolist() == ["X5"]
    scores = pd.read_csv("out/fold-1/recovery/recovery.csv")
    assert set(scores["slide"]) == set(tested)
    assert "fold-1" in set(scores["method"])
    assert f"{len(tested)} slides" in capsys.readouterr().out
    # What is done is not done again.
    monkeypatch.setattr(script, "build", None)
    monkeypatch.setattr(script.sagefm.pretrain, "fit", None)
    script.main(command)
    with pytest.raises(InputError, match=r"fold-1\.safetensors: was made with other settings"):
        script.main([*command, "--set", "data.balance=1"])


def test_the_script_continues_what_was_killed(script, hest, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("sagefm.pretrain.fitting.reference_spots_of", kill)  # after the last epoch
        with pytest.raises(KilledError):
            script.main(["hest", "-o", "out", *TINY])
    resumed = []
    fit = script.sagefm.pretrain.fit

    def noting(*arguments, **options):
        resumed.append(options["resume"])
        return fit(*arguments, **options)

    monkeypatch.setattr(script.sagefm.pretrain, "fit", noting)
    script.main(["hest", "-o", "out", *TINY])
    assert resumed == [True]
    assert set(SageFM.load("out/atlas.safetensors").provenance["slides"]) == set(
        map(pseudonym, DATASETS)
    )
