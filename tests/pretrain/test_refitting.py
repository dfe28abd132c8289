"""Models that each lack some of the patients."""

import signal

import pytest
import torch

from sagefm import InputError
from sagefm.pp.simulate import simulate
from sagefm.pretrain import Recipe, fit, refits
from sagefm.pretrain.corpus import Corpus, build
from sagefm.pretrain.loop import Training

TINY = [
    "network.widths=[16,8,8,8,12]", "data.genes=60", "data.validation=[]", "train.batch_size=32",
    "train.max_epochs=1",
]  # fmt: skip
SPOTS = 60


@pytest.fixture(scope="module")
def slides():
    """Three patients, the first with two slides."""
    genes = simulate(15).var_names[:80]
    owners = {"s0": "ann", "s1": "ann", "s2": "ben", "s3": "cyd"}
    return {
        name: simulate(SPOTS, genes=genes, seed=seed, patient=patient, slide=name)
        for seed, (name, patient) in enumerate(owners.items())
    }


def recipe(*changes, name="small"):
    return Recipe.load(name, [*TINY, *changes])


def equal(one, other):
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def models(slides):
    return dict(refits(slides, recipe(), progress=False))


def test_each_patient_is_left_out_once(models):
    assert list(models) == ["without_ann", "without_ben", "without_cyd"]
    assert [model.provenance["left_out"] for model in models.values()] == [
        ["ann"],
        ["ben"],
        ["cyd"],
    ]
    trained = [set(model.provenance["slides"]) for model in models.values()]
    assert trained == [{"s2", "s3"}, {"s0", "s1", "s3"}, {"s0", "s1", "s2"}]
    for model, names in zip(models.values(), trained, strict=True):
        assert model.provenance["trained_slides"].keys() == names
        assert model.trained_on is not None


def test_all_have_the_same_genes(models, slides):
    """Also where one patient decides which genes are detected in the most spots."""
    first, *others = (model.vocabulary.symbols for model in models.values())
    assert others == [first, first]
    alone = fit(slides, recipe('data.leave_out=["ann"]'), progress=False).model
    assert set(alone.vocabulary.symbols) != set(first)


@pytest.mark.parametrize("name", ["small", "context"])
def test_a_refit_is_the_fit_that_leaves_the_patient_out(slides, tmp_path, name):
    (tmp_path / "genes.txt").write_text("\n".join(slides["s0"].var_names[:50]))
    changes = [f"data.genes={tmp_path / 'genes.txt'}", "data.weights={s0=0.5}"]
    changes += ["network.widths=[8,12,12,6]"] if name == "context" else []
    model = dict(refits(slides, recipe(*changes, name=name), progress=False))["without_ben"]
    same = fit(slides, recipe(*changes, 'data.leave_out=["ben"]', name=name), progress=False).model
    assert equal(model, same)
    assert model.provenance["recipe"] == same.provenance["recipe"]


def test_all_validate_on_the_same_patient_which_none_trains_on(slides):
    held = fit(slides, recipe("data.validation=0.1"), progress=False).model.provenance
    models = dict(refits(slides, recipe("data.validation=0.1"), progress=False))
    assert len(models) == 2
    for model in models.values():
        assert model.provenance["validation_spots"] == held["validation_spots"]
        assert not set(model.provenance["left_out"]) & {
            slides[name].obs["patient"].iloc[0] for name in held["validation_spots"]
        }


def test_patients_that_the_recipe_leaves_out_are_in_no_refit(slides):
    models = dict(refits(slides, recipe('data.leave_out=["cyd"]'), progress=False))
    assert list(models) == ["without_ann", "without_ben"]
    assert set(models["without_ben"].provenance["slides"]) == {"s0", "s1"}


def test_groups_of_patients(slides):
    models = dict(refits(slides, recipe(), 2, progress=False))
    left_out = [patient for model in models.values() for patient in model.provenance["left_out"]]
    assert sorted(left_out) == ["ann", "ben", "cyd"]
    assert sorted(models) == ["without_ann", "without_ben_and_1_more"]


def test_a_corpus_is_refitted_by_patient_and_by_dataset(slides, tmp_path):
    for name, slide in slides.items():
        slide.uns["dataset"] = "one" if name == "s3" else "other"
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    build({name: tmp_path / f"{name}.h5ad" for name in slides}, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(dict(refits(corpus, recipe(), progress=False))) == 3
    models = dict(refits(corpus, recipe(), 2, progress=False))
    assert list(models) == ["without_ann_and_1_more", "without_cyd"]


def test_models_are_saved_one_by_one_and_not_trained_again(slides, tmp_path, monkeypatch):
    saved = refits(slides, recipe(), folder=tmp_path / "out", progress=False)
    name, model = next(saved)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.safetensors"]
    first = (tmp_path / "out" / f"{name}.safetensors").read_bytes()
    steps = []
    monkeypatch.setattr(Training, "run_epochs", counting(Training.run_epochs, steps))
    again = dict(refits(slides, recipe(), folder=tmp_path / "out", progress=False))
    assert len(steps) == 2
    assert equal(again[name], model)
    dict(refits(slides, recipe(), folder=tmp_path / "out", overwrite=True, progress=False))
    assert len(steps) == 2
    assert (tmp_path / "out" / f"{name}.safetensors").read_bytes() == first
    assert len(list((tmp_path / "out").iterdir())) == 3  # no run is left


def counting(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


@pytest.fixture
def folder(slides, tmp_path):
    """A folder with the first of the refits."""
    next(refits(slides, recipe(), folder=tmp_path / "out", progress=False))
    return tmp_path / "out"


def test_models_of_another_recipe_or_of_other_slides_are_replaced_on_request_only(slides, folder):
    path = folder / "without_ann.safetensors"
    other, counts = recipe("train.max_epochs=2"), slides | {"s3": slides["s3"][:50].copy()}
    before = path.read_bytes()
    for changed in ((slides, other), (counts, recipe())):
        with pytest.raises(InputError, match=r"without_ann.safetensors: exists already and is not"):
            refits(*changed, folder=folder, progress=False)
    assert path.read_bytes() == before
    next(refits(slides, other, folder=folder, overwrite=True, progress=False))
    assert path.read_bytes() != before


@pytest.mark.parametrize("content", [b"", b"of somebody else"])
def test_a_file_that_is_no_model_is_not_replaced(slides, folder, content):
    (folder / "without_ben.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"without_ben.safetensors: exists already"):
        refits(slides, recipe(), folder=folder, progress=False)


def test_models_of_other_patients_are_not_mixed_with_the_refits(slides, folder):
    (folder / "without_ann.safetensors").rename(folder / "without_dan.safetensors")
    with pytest.raises(InputError, match=r"without_dan.safetensors: is none of these refits"):
        refits(slides, recipe(), folder=folder, overwrite=True, progress=False)


def test_ctrl_c_ends_all_and_the_run_is_resumed(slides, models, tmp_path, monkeypatch):
    step, number = Training.train_step, [0]

    def interrupted(*arguments):
        number[0] += 1
        if number[0] == 3:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    two = recipe("train.max_epochs=2")
    whole = next(refits(slides, two, progress=False))[1]
    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dict(refits(slides, two, folder=tmp_path, progress=False))
    assert [path.name for path in tmp_path.iterdir()] == ["without_ann.run"]
    assert number[0] == 5 - 2
    assert equal(next(refits(slides, two, folder=tmp_path, progress=False))[1], whole)
    assert not (tmp_path / "without_ann.run").exists()


@pytest.mark.parametrize(
    ("patient", "name"),
    [
        ("a/b", "without_a%2Fb"),
        ("../up", "without_..%2Fup"),
        ("50%", "without_50%25"),
        ("Ü 1", "without_Ü 1"),
        ("x" * 300, f"without_{'x' * 48}_"),
    ],
)
def test_any_name_of_a_patient_gives_a_file(slides, tmp_path, patient, name):
    owners = {"s0": patient, "s2": "zoe"}
    some = {slide: slides[slide] for slide in owners}
    models = refits(some, recipe(), patients=owners, folder=tmp_path / "out", progress=False)
    assert dict(models)
    [path] = (path for path in (tmp_path / "out").iterdir() if path.stem != "without_zoe")
    assert path.stem.startswith(name)


def without_patient(slide):
    bare = slide.copy()
    del bare.obs["patient"]
    return bare


def test_slides_without_a_patient_are_refused(slides):
    bare = slides | {"s2": without_patient(slides["s2"])}
    with pytest.raises(InputError, match=r"s2: obs has no column 'patient'.*--patients"):
        refits(bare, recipe(), progress=False)
    owners = {"s0": "a", "s2": "b"}
    some = {name: bare[name] for name in owners}
    assert len(dict(refits(some, recipe(), patients=owners, progress=False))) == 2


@pytest.mark.parametrize(
    ("names", "n", "changes", "words"),
    [
        (("s0", "s1"), None, (), "all slides are of the patient 'ann'"),
        (("s0", "s2"), None, ("data.validation=0.1",), r"one patient .* validate on.*on none"),
        (("s0", "s2"), None, ('data.leave_out=["ben"]',), r"on \(ann\), and each .* patients$"),
        (("s0", "s2"), None, ('data.leave_out=["eve"]',), "no slide is of patient 'eve'"),
        (("s0", "s2"), 3, (), "the number of refits is 3: the slides are of 2"),
        (("s0", "s2"), 1, (), "the number of refits is 1: give 2 at least"),
        ((), None, (), "no slides to train on"),
    ],
)
def test_what_cannot_be_refitted(slides, names, n, changes, words):
    with pytest.raises(InputError, match=words):
        refits({name: slides[name] for name in names}, recipe(*changes), n, progress=False)


def test_torchrun_is_refused(slides, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with pytest.raises(InputError, match="without torchrun"):
        refits(slides, recipe(), progress=False)
