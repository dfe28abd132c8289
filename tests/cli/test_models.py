"""The command that describes a model."""

from dataclasses import replace

from sagefm import InputError, SageFM
from sagefm.pp.pseudonyms import pseudonym
from sagefm.pp.simulate import simulate
from sagefm.pp.slide_record import records_of


def test_info_counts_the_kinds_of_training_slides(run, tmp_path, model):
    row = {"spots": 99, "counts": 812.0, "genes": 478, "measured": 1.0, "organ": "thyroid"}
    rows = {f"s{i}": row | {"profile": [0.5] * 30} for i in range(3)}
    replace(model, provenance={"seed": 1, "trained_slides": rows}).save(tmp_path / "m.safetensors")
    status, out, _ = run("info", str(tmp_path / "m.safetensors"))
    assert status == 0
    assert "thyroid" in out
    assert "297" in out
    assert "trained_slides" not in out  # long
    assert '"seed": 1' in out


def test_the_table_of_patients_says_what_the_model_records(run, tmp_path):
    genes = simulate(15).var_names[:60]
    for i, name in enumerate("ab"):
        simulate(40, genes=genes, seed=i).write_h5ad(tmp_path / f"{name}.h5ad")
    rows = "slide,patient,organ,license\na,ann,liver,MIT\na,ann,liver,MIT\nb,ben,,\n"
    (tmp_path / "who.csv").write_text(rows)
    small = ["network.widths=[16,8,8,8,12]", "data.genes=60", "train.batch_size=16",
             "train.max_epochs=1", "data.validation=[]"]  # fmt: skip
    changes = (word for entry in small for word in ("--set", entry))
    command = ["pretrain", "a.h5ad", "b.h5ad", "-o", "m.safetensors", "--recipe", "small"]
    status, _, err = run(*command, "--patients", "who.csv", *changes)
    assert status == 0, err
    found = records_of(SageFM.load(tmp_path / "m.safetensors").provenance)
    assert [(each.patient, each.organ, each.license) for each in found.values()] == [
        (pseudonym("ann"), "liver", "MIT"), (pseudonym("ben"), "", ""),
    ]  # fmt: skip


def test_a_demo_of_a_slide_writes_into_its_folder_only(run, tmp_path, monkeypatch):
    simulate(40).write_h5ad(tmp_path / "mine.h5ad")
    monkeypatch.setattr("sagefm.demo.story._compare", lambda part, *_: stop(part.name))
    monkeypatch.setattr("sagefm.demo.story.detected", lambda slide, _: slide.var_names.to_numpy())

    def stop(name):
        raise InputError(f"compared {name}")

    status, _, err = run("demo", str(tmp_path / "mine.h5ad"), "-o", str(tmp_path / "out"))
    assert status == 2
    assert "compared mine" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.h5ad", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.h5ad"]
