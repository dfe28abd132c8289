"""The verb perturb, as a user types it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import sagefm
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pp.writing import write_slide

LEAD = ["ligand", "target", "effect", "z", "q", "z_components", "learned_only"]
SILENT = "IL22"
"""A gene of the model that no spot of s1 shows."""
HOW = ["-m", "net.safetensors", "-o", "out.csv"]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Files that all tests read."""
    place = tmp_path_factory.mktemp("held")
    slides = {}
    for i in (1, 2):
        slide = simulate(150 + i, seed=i, slide=f"s{i}")
        if i == 1:
            slide.X = csr_matrix(slide.X.multiply(slide.var_names != SILENT))
        write_slide(slide, place / f"s{i}.h5ad")
        slides[f"s{i}"] = slide
    write_slide(ad.concat(slides, label="section", index_unique="-"), place / "both.h5ad")
    genes = [SILENT, *(gene for gene in slide.var_names[:250] if gene != SILENT)]
    net = SageFM.new(Vocabulary(tuple(genes)), Config(widths=(16, 12, 12, 12, 14)))
    net.save(place / "net.safetensors")
    return place


@pytest.fixture
def folder(held, tmp_path):
    """An empty folder but for links to them."""
    for path in held.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def run(run, folder):
    return lambda *words: run("perturb", *words, "--device", "cpu")


@pytest.fixture(scope="module")
def model(held):
    return SageFM.load(held / "net.safetensors", device="cpu")


@pytest.fixture(scope="module")
def genes(held, model):
    """Genes of the model, those that s1 shows the most first."""
    slide = sagefm.read(held / "s1.h5ad")
    known = list(model.vocabulary)
    return [known[i] for i in np.argsort(-np.asarray(slide[:, known].X.sum(axis=0)).ravel())]


def new(folder):
    """What a command has made."""
    return sorted(path.name for path in folder.iterdir() if not path.is_symlink())


def test_a_ligand_and_its_targets(run, folder, model, genes):
    a, b, c = genes[:3]
    words = ["--ligand", a, "--targets", f"{b},{c}", "--plot", "pics"]
    status, out, err = run("s1.h5ad", *HOW, *words)
    assert status == 0, err
    found = pd.read_csv("out.csv")
    passed = int((found["q"] < 0.05).sum())
    assert out.startswith(
        f"out.csv: 2 pairs, {passed} with q < 0.05\n\nThe set: 2 pairs of 1 ligand"
    )
    assert list(found) == LEAD
    words = ["-m", "net.safetensors", "-o", "all.csv", *words[:4], "--details"]
    assert run("s1.h5ad", *words)[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv("all.csv")[LEAD], found)
    found = pd.read_csv("all.csv")
    wanted = sagefm.tl.perturb(sagefm.read("s1.h5ad"), model, [(a, b), (a, c)])
    assert list(found) == list(wanted)
    sets = pd.read_csv("out.sets.csv")
    pd.testing.assert_frame_equal(
        sets, pd.DataFrame(wanted.attrs["sets"]), rtol=1e-4, check_dtype=False
    )
    pd.testing.assert_frame_equal(
        found[["ligand", "target", "direction"]], wanted[["ligand", "target", "direction"]],
        check_dtype=False,
    )  # fmt: skip
    for column in ("effect", "slope", "z", "p", "q", "p_coexpressed", "z_reversed"):
        np.testing.assert_allclose(found[column], wanted[column], rtol=1e-4)
    assert (found["n_spots"] == 151).all()
    assert (found["n_slides"] == 1).all()
    assert new(folder) == ["all.csv", "all.sets.csv", "out.csv", "out.sets.csv", "pics"]
    pictures = {f"{a}_{b}.png", f"{a}_{c}.png", "pairs.png", "sets.png"}
    assert {path.name for path in (folder / "pics").iterdir()} == pictures
    assert all(path.stat().st_size > 5000 for path in (folder / "pics").iterdir())
    assert "nulls, forward: " in err


def test_each_map_has_a_scale_of_its_own_and_says_what_is_not_significant(run, genes, monkeypatch):
    axes = []
    draw = sagefm.pl.response
    monkeypatch.setattr(sagefm.pl, "response", lambda *a, **k: axes.append(draw(*a, **k)))
    words = ["--ligand", genes[0], "--targets", ",".join(genes[1:4]), "--plot", "pics"]
    assert run("s1.h5ad", *HOW, *words)[0] == 0
    for ax in axes:
        spots = ax.collections[-1]
        most = np.percentile(np.abs(spots.get_array().compressed()), 99.5)
        np.testing.assert_allclose(spots.get_clim(), (-most, most), rtol=1e-6)
    q = pd.read_csv("out.csv").set_index("target")["q"]
    for ax in axes:
        title, verdict = ax.get_title().split("\n")
        assert verdict.endswith("not significant)") == (q[title.split(",")[0]] >= 0.05)


def test_no_map_is_overwritten(run, folder, genes):
    (folder / "pics").mkdir()
    (folder / "pics" / f"{genes[0]}_{genes[1]}.png").write_text("mine")
    words = ["--ligand", genes[0], "--targets", genes[1], "--plot", "pics"]
    status, _, err = run("s1.h5ad", *HOW, *words)
    assert status == 2
    assert f"{genes[0]}_{genes[1]}.png" in err
    assert not (folder / "pics" / "pairs.png").exists()


def test_one_pair_is_one_pair(run, genes):
    _, out, _ = run("s1.h5ad", *HOW, "--ligand", genes[0], "--targets", genes[1])
    assert out.startswith("out.csv: 1 pair, ")


def test_pairs_of_a_file(run, folder, genes):
    """Complexes become their subunits; what cannot be asked is left out, and that is told."""
    a, b, c, d = genes[:4]
    table = pd.DataFrame({"ligand": [a, a, "NOT9A"], "receptor": [f"{b}_{c}", d, b]})
    table.to_csv("mine.csv", index=False)
    status, out, err = run("s1.h5ad", *HOW, "--pairs", "mine.csv", "--levels", 3, "--details")
    assert status == 0, err
    found = pd.read_csv("out.csv")
    assert list(zip(found["ligand"], found["target"], strict=True)) == [(a, b), (a, c), (a, d)]
    assert found["complex"].tolist()[:2] == [f"{a}^{b}_{c}"] * 2
    assert "note: 1 of 4 pairs are left out" in err
    assert "NOT9A" in err
    assert out.startswith("out.csv: 3 pairs, ")


def test_two_slides(run, folder, genes):
    """Effects are means over slides; the second one shows the ligand that the first one lacks."""
    a, b = genes[:2]
    pd.DataFrame([(a, b), (SILENT, b)], columns=["ligand", "target"]).to_csv("p.csv", index=False)
    words = ["--pairs", "p.csv", "--plot", "pics", "--details"]
    status, out, err = run("s1.h5ad", "s2.h5ad", *HOW, *words)
    assert status == 0, err
    assert "several slides replicate nothing" in out
    assert pd.read_csv("out.slides.csv", index_col=0).shape == (2, 2)
    both = pd.read_csv("out.csv")
    assert both["n_slides"].tolist() == [2, 1]
    assert both["n_spots"].tolist() == [151 + 152, 152]
    alone = []
    for name in ("s1", "s2"):
        words = ["-m", "net.safetensors", "-o", f"{name}.csv", "--ligand", a, "--targets", b]
        assert run(f"{name}.h5ad", *words)[0] == 0
        alone.append(pd.read_csv(f"{name}.csv")["effect"][0])
    assert both["effect"][0] == pytest.approx(np.mean(alone), rel=1e-4)
    # On the first slide, which is drawn, that ligand does nothing.
    assert (folder / "pics" / f"{SILENT}_{b}.png").is_file()


def test_several_slides_in_one_file(run, folder, genes):
    words = ["--ligand", genes[0], "--targets", genes[1], "--plot", "pics"]
    status, _, err = run("both.h5ad", *HOW, *words, "--details", "--slide-key", "section")
    assert status == 0, err
    assert pd.read_csv("out.csv")["n_spots"].tolist() == [151 + 152]
    assert len(list((folder / "pics").iterdir())) == 3


def test_refits(run, folder, model, genes):
    (folder / "refits").mkdir()
    for seed in (1, 2, 3):
        other = SageFM.new(model.vocabulary, model.config, seed=seed)
        other.save(folder / "refits" / f"without_{seed}.safetensors")
    words = ["--ligand", genes[0], "--targets", genes[1], "--refits", "refits"]
    status, out, err = run("s1.h5ad", *HOW, *words)
    assert status == 0, err
    assert "3 refits: AUROC " in out
    assert pd.read_csv("out.csv")["agreement"].between(0, 1).all()
    assert pd.read_csv("out.refits.csv")["refit"].tolist() == [1, 2, 3]
    (folder / "nothing").mkdir()
    words[-1] = "nothing"
    status, _, err = run("s1.h5ad", *HOW, "--overwrite", *words)
    assert status == 2
    assert "nothing: no .safetensors file in it; make refits with sagefm pretrain" in err


def test_gene_sets(run, folder, model, genes):
    sets = {"one": genes[2:6], "two": genes[6:12]}
    lines = ["\t".join([name, "said", *own]) for name, own in sets.items()]
    (folder / "sets.gmt").write_text("\n".join(lines))
    status, out, err = run("s1.h5ad", *HOW, "--ligand", genes[0], "--sets", "sets.gmt")
    assert status == 0, err
    assert out.startswith("out.csv: 2 rows, ")
    wanted = sagefm.tl.perturb_sets(sagefm.read("s1.h5ad"), model, genes[0], sets)
    found = pd.read_csv("out.csv")
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, check_dtype=False)
    assert new(folder) == ["out.csv", "sets.gmt"]


def test_a_region(run, genes):
    slide = sagefm.read("s1.h5ad")
    words = ["--ligand", genes[0], "--targets", genes[1], "--region", "domain=D1"]
    status, _, err = run("s1.h5ad", *HOW, *words, "--plot", "pics", "--details")
    assert status == 0, err
    assert pd.read_csv("out.csv")["n_spots"].tolist() == [(slide.obs["domain"] == "D1").sum()]


A_B = ["--ligand", "{a}", "--targets", "{b}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s1.h5ad", *HOW, "--ligand", "{a}X9", "--targets", "{b}"], "did you mean"),
        (["s1.h5ad", *HOW, "--ligand", "{a}", "--targets", "{b}X9,{a}X9"],
         "none of 2 genes is left: "),
        (["s1.h5ad", *HOW, "--ligand", SILENT, "--targets", "{b}"],
         "s1.h5ad: pairs: none is left; left out: 1 whose ligand no spot of the slide has"),
        (["s1.h5ad", *HOW, *A_B, "--region", "domain=D77"], "no spot has that value; it has D"),
        (["s1.h5ad", *HOW, *A_B, "--region", "organ=brain"], "obs has no column 'organ'"),
        (["s1.h5ad", *HOW, *A_B, "--region", "domain"], "write it KEY=VALUE"),
        (["s1.h5ad", *HOW], "say what to perturb: --ligand A --targets B,C"),
        (["s1.h5ad", *HOW, *A_B, "--pairs", "liana"], "say what to perturb"),
        (["s1.h5ad", *HOW, "--ligand", "{a}"], "say what to perturb"),
        (["s1.h5ad", *HOW, "--targets", "{a}"], "say what to perturb"),
        (["s1.h5ad", *HOW, *A_B, "--sets", "s.gmt"], "say what to perturb"),
        (["s1.h5ad", *HOW, "--ligand", "{a}", "--sets", "nothere.gmt"], "nothere.gmt: cannot be"),
        (["s1.h5ad", *HOW, "--ligand", ",", "--targets", "{a}"], "has no gene"),
        (["s1.h5ad", *HOW, "--pairs", "nothere.csv"],
         "error: nothere.csv: no such file, and none of the"),
        (["s1.h5ad", "-m", "net.safetensors", "-o", "out.tsv", *A_B],
         "out.tsv: give it a name that ends with .csv"),
        (["s1.h5ad", "-m", "net.safetensors", "-o", "sub", *A_B], "sub: give it a name"),
        (["nothere.h5ad", *HOW, *A_B], "nothere.h5ad"),
        (["s1.h5ad", "-m", "nothere.safetensors", "-o", "out.csv", *A_B], "nothere.safetensors"),
        (["s1.h5ad", "-m", "s1.h5ad", "-o", "out.csv", *A_B], "s1.h5ad"),
        (["s1.h5ad", *HOW, *A_B, "--levels", "1"], "--levels"),
        (["s1.h5ad", "s1.h5ad", *HOW, *A_B], "a second slide called 's1'"),
        (["both.h5ad", *HOW, *A_B], "both.h5ad: several slides in one object"),
        (["s1.h5ad", *HOW, *A_B, "--plot", "s2.h5ad"], "s2.h5ad"),
        (["s1.h5ad", "s2.h5ad", *HOW, *A_B, "--region", "domain=D77"], "D77"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(run, folder, genes, words, said):
    status, out, err = run(*(str(word).format(a=genes[0], b=genes[1]) for word in words))
    assert status == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert not [line for line in err.splitlines()[:-1] if not line.startswith("note: ")]
    assert not out
    assert not new(folder)


@pytest.fixture
def killed_at(monkeypatch):
    """Let the network die when it answers the nth question."""
    from sagefm.tl.perturbation._perturber import Perturber

    means = Perturber.means

    def arrange(number):
        asked = []

        def dying(*arguments, **names):
            asked.append(1)
            if len(asked) == number:
                raise KeyboardInterrupt
            return means(*arguments, **names)

        monkeypatch.setattr(Perturber, "means", dying)
        return asked

    return arrange


def test_a_killed_run_goes_on_where_it_was(run, folder, genes, killed_at):
    words = ["--ligand", ",".join(genes[:2]), "--targets", ",".join(genes[2:4]), "--seed", 3]
    assert run("s1.h5ad", *HOW[:2], "-o", "whole.csv", *words)[0] == 0
    killed_at(5)  # after ligands, shuffled neighbors, and two of the nulls
    status, out, err = run("s1.h5ad", *HOW, *words)
    assert status == 130
    assert not out
    assert err.splitlines()[-1] == "interrupted"
    assert new(folder) == ["out.csv.parts", "whole.csv", "whole.sets.csv"]
    kept = len(list((folder / "out.csv.parts").glob("*.npy")))
    assert kept == 4
    asked = killed_at(1000)
    assert run("s1.h5ad", *HOW, *words)[0] == 0
    assert len(asked) > 0
    assert new(folder) == ["out.csv", "out.sets.csv", "whole.csv", "whole.sets.csv"]
    assert (folder / "out.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    again = killed_at(1000)
    assert run("s1.h5ad", *HOW, *words, "--overwrite")[0] == 0  # nothing is left: all is asked
    assert len(again) == len(asked) + kept


def test_another_command_takes_nothing_of_a_killed_one(run, folder, genes, killed_at):
    words = ["--ligand", genes[0], "--targets", genes[1]]
    assert run("s1.h5ad", *HOW[:2], "-o", "whole.csv", *words, "--seed", 4)[0] == 0
    killed_at(4)
    assert run("s1.h5ad", *HOW, *words, "--seed", 3)[0] == 130
    killed_at(1000)
    assert run("s1.h5ad", *HOW, *words, "--seed", 4)[0] == 0
    assert (folder / "out.csv").read_bytes() == (folder / "whole.csv").read_bytes()


def test_a_killed_run_leaves_the_table_that_was_there(run, folder, genes, killed_at):
    (folder / "out.csv").write_text("old\n")
    killed_at(2)
    words = [*HOW, "--ligand", genes[0], "--targets", genes[1]]
    status, _, err = run("s1.h5ad", *words)
    assert status == 2
    assert "out.csv: exists already; choose another place, or add --overwrite" in err
    assert run("s1.h5ad", *words, "--overwrite")[0] == 130
    assert (folder / "out.csv").read_text() == "old\n"


def test_help_names_the_resources(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "liana" in out
