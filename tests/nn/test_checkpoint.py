"""Files of weights: ours and the published ones; nothing in a file ever runs."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from reference import published
from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.nn import checkpoint
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.vocabulary import Vocabulary

GENES = ("LACTB", "CARM1", "RFX1", "TP53", "EGFR", "KRT8")
WIDTHS = (8, 6, 6, 6, 7)


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (Path.touch, (Path(self.mark),))


@pytest.fixture
def state():
    torch.manual_seed(0)
    return published.PublishedNetwork(len(GENES), WIDTHS).state_dict()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text("".join(f"{gene}\n" for gene in GENES))
    return path


def saved(content, path):
    torch.save(content, path)
    return path


def as_published(state):
    """All that the published file holds beside the weights."""
    return {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{}]},
        "scheduler_state_dict": {"factor": 0.9, "best": np.float64(0.05)},
        "epoch": 126,
        "best_val_loss": np.float64(0.0512),
        "hidden_channels": 512,
        "learning_rate": 5e-5,
        "weight_decay": 1e-4,
        "mask_percentage": 0.3,
        "batch_size": 64,
    }


def test_the_published_checkpoint_is_read_with_its_facts(state, text, tmp_path):
    path = saved(as_published(state), tmp_path / "published.pt")
    model = SageFM.from_published(path, genes=text)
    assert model.config.widths == WIDTHS
    assert model.vocabulary.symbols == GENES
    facts = model.provenance["checkpoint"]
    assert facts["epoch"] == 126
    assert facts["best_val_loss"] == pytest.approx(0.0512)
    torch.testing.assert_close(model.network.first, state["conv1.lin.weight"].T)


@pytest.mark.parametrize("dtype", [object, str])
def test_the_gene_list_may_be_an_array(dtype, tmp_path):
    path = tmp_path / "genes.npy"
    np.save(path, np.array(GENES, dtype=dtype))
    assert read_genes(path).symbols == GENES


def test_the_gene_list_may_hold_numpy_strings(tmp_path):
    path = tmp_path / "genes.npy"
    array = np.empty(len(GENES), dtype=object)
    array[:] = [np.str_(gene) for gene in GENES]
    np.save(path, array)
    assert read_genes(path).symbols == GENES


def test_a_hostile_gene_list_is_refused_and_does_not_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "genes.npy"
    array = np.empty(2, dtype=object)
    array[:] = ["TP53", Hostile(mark)]
    np.save(path, array)
    np.load(path, allow_pickle=True)
    assert mark.exists()  # it is hostile indeed
    mark.unlink()
    with pytest.raises(InputError, match=r"genes\.npy: refused, it would call .*text file"):
        read_genes(path)
    assert not mark.exists()


def test_a_hostile_checkpoint_is_refused_and_does_not_run(state, text, tmp_path):
    mark = tmp_path / "mark"
    path = saved(as_published(state) | {"extra": Hostile(mark)}, tmp_path / "published.pt")
    torch.load(path, weights_only=False)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(InputError, match=r"published\.pt: refused, .*could run code"):
        SageFM.from_published(path, genes=text)
    assert not mark.exists()


def test_a_tensor_that_a_few_numbers_stand_for_is_refused(state, text, tmp_path):
    """Expanded, it would be larger than any memory."""
    state["conv1.lin.weight"] = torch.zeros(1).expand(2**21, 2**21)
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    with pytest.raises(InputError, match=r"published\.pt: conv1\.lin\.weight is no layer"):
        SageFM.from_published(path, genes=text)


@pytest.mark.parametrize("kind", [torch.int32, torch.complex64, torch.float8_e4m3fn])
def test_layers_of_other_types_are_refused(state, text, tmp_path, kind):
    state["conv3.bias"] = state["conv3.bias"].to(kind)
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    with pytest.raises(InputError, match=r"conv3\.bias is no layer"):
        SageFM.from_published(path, genes=text)


def test_a_flipped_bit_of_a_weight_is_found(state, text, tmp_path):
    path = saved(as_published(state), tmp_path / "published.pt")
    content = bytearray(path.read_bytes())
    content[content.index(state["conv3.lin.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole PyTorch checkpoint"):
        SageFM.from_published(path, genes=text)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [str, np.str_])
def test_gene_lists_of_all_pickles_are_read_without_running_them(
    tmp_path, monkeypatch, protocol, kind
):
    path, array = tmp_path / "genes.npy", np.empty(len(GENES), dtype=object)
    array[:] = [kind(gene) for gene in GENES]
    np.save(path, array)
    header = path.read_bytes().partition(b"\n")[0]
    path.write_bytes(header + b"\n" + pickle.dumps(array, protocol=protocol))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("runs"))
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("runs"))
    assert read_genes(path).symbols == GENES


def test_a_gene_list_with_changed_types_harms_nothing(tmp_path):
    """The flags of a type say whether its values are objects: wrong ones can end the process."""
    path = tmp_path / "genes.npy"
    np.save(path, np.array(GENES, dtype=object))
    content = path.read_bytes()
    assert content.count(b"K?t") == 1  # the flags, 63
    path.write_bytes(content.replace(b"K?t", b"K>t"))
    assert read_genes(path).symbols == GENES


@pytest.mark.parametrize("array", [np.array([["A"], ["B"]]), np.arange(3.0), np.array([b"A"])])
def test_arrays_that_are_no_gene_list_are_refused(tmp_path, array):
    np.save(tmp_path / "genes.npy", array)
    with pytest.raises(InputError, match=r"genes\.npy: is not a"):
        read_genes(tmp_path / "genes.npy")


def test_a_bare_hostile_pickle_is_refused(text, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "published.pt"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(InputError, match=r"published\.pt"):
        SageFM.from_published(path, genes=text)
    with pytest.raises(InputError, match=r"published\.pt"):
        SageFM.load(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv3.bias"), "not those of the published network"),
        (lambda s: s.update({"conv6.bias": torch.zeros(3)}), "not those of the published network"),
        (lambda s: s.update({"conv3.bias": torch.zeros(3)}), r"encoder\.1\.bias has shape \(3,\)"),
        (
            lambda s: s.update({"conv1.lin.weight": torch.zeros(8, 9)}),
            r"first has shape \(9, 8\).*vocabulary of 6 genes.*gene list",
        ),
    ],
)
def test_other_layers_and_shapes_are_refused(state, text, tmp_path, change, message):
    change(state)
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    with pytest.raises(InputError, match=message):
        SageFM.from_published(path, genes=text)


def test_a_vocabulary_of_another_length_is_refused(state, tmp_path):
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    (tmp_path / "five.txt").write_text("\n".join(GENES[:5]))
    with pytest.raises(InputError, match=r"vocabulary of 5 genes.*is this the gene list"):
        SageFM.from_published(path, genes=tmp_path / "five.txt")


def test_something_else_than_the_published_checkpoint_is_refused(state, text, tmp_path):
    path = saved(state, tmp_path / "published.pt")
    with pytest.raises(InputError, match="no model_state_dict"):
        SageFM.from_published(path, genes=text)
    with pytest.raises(InputError, match=r"missing\.pt: no such file"):
        SageFM.from_published(tmp_path / "missing.pt", genes=text)


@pytest.mark.parametrize("keep", [0, 10, 300, -7])
def test_truncated_files_are_refused(state, text, tmp_path, keep):
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    model = SageFM.from_published(path, genes=text)
    model.save(tmp_path / "m.safetensors")
    for file, load in (
        (path, lambda p: SageFM.from_published(p, genes=text)),
        (tmp_path / "m.safetensors", SageFM.load),
    ):
        file.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(InputError, match=file.name) as caught:
            load(file)
        assert "\n" not in str(caught.value)


def test_a_truncated_gene_array_is_refused(tmp_path):
    path = tmp_path / "genes.npy"
    np.save(path, np.array(GENES, dtype=object))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a complete array"):
        read_genes(path)


def test_save_and_load_keep_everything(tmp_path):
    vocabulary = Vocabulary(GENES, ("ENSG1", "", "ENSG3", "", "", "ENSG6"))
    model = SageFM.new(vocabulary, Config(widths=WIDTHS, n_neighbors=7), seed=4)
    model.provenance["note"] = "é × 2"
    model.save(tmp_path / "a" / "m.safetensors")
    again = SageFM.load(tmp_path / "a" / "m.safetensors")
    assert again.vocabulary == model.vocabulary
    assert again.config == model.config
    assert again.provenance == model.provenance
    for name, weight in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["m.safetensors"]


def test_an_array_without_values_is_kept(tmp_path):
    arrays = {"none": torch.from_numpy(np.zeros((0, 3))), "one": torch.ones(1)}
    checkpoint.write(tmp_path / "a.safetensors", arrays, {"kind": "annotator"})
    again, _ = checkpoint.read(tmp_path / "a.safetensors", "annotator")
    assert again["none"].shape == (0, 3) and again["one"].item() == 1


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model = SageFM.new(Vocabulary(GENES), Config(widths=WIDTHS))
    path = tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()

    def disk_full(tensors, beside, metadata):
        Path(beside).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sagefm.nn.checkpoint.save_file", disk_full)
    with pytest.raises(InputError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_safetensors_file_is_not_a_model(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no sagefm header"):
        SageFM.load(tmp_path / "other.safetensors")


def test_new_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = SageFM.new(Vocabulary(GENES), Config(widths=WIDTHS), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    same = SageFM.new(Vocabulary(GENES), Config(widths=WIDTHS), seed=1)
    other = SageFM.new(Vocabulary(GENES), Config(widths=WIDTHS), seed=2)
    assert torch.equal(first.network.first, same.network.first)
    assert not torch.equal(first.network.first, other.network.first)


def test_a_converted_model_knows_ensembl_ids_where_there_is_a_table(
    state, text, tmp_path, monkeypatch
):
    (tmp_path / "hgnc_complete_set.txt").write_text(
        "symbol\tprev_symbol\talias_symbol\tensembl_gene_id\nTP53\t\t\tENSG00000141510\n"
    )
    monkeypatch.setenv("SAGEFM_GENES", str(tmp_path))
    path = saved({"model_state_dict": state}, tmp_path / "published.pt")
    SageFM.from_published(path, genes=text).save(tmp_path / "m.safetensors")
    monkeypatch.delenv("SAGEFM_GENES")
    ids = dict(zip(GENES, SageFM.load(tmp_path / "m.safetensors").vocabulary.ensembl, strict=True))
    assert ids["TP53"] == "ENSG00000141510"
    assert ids["LACTB"] == ""


@pytest.mark.parametrize("longer", [0, 4])
def test_a_file_that_is_replaced_meanwhile_is_read_again(tmp_path, monkeypatch, longer):
    """Weights and header are of one version, though the library opens the file twice."""
    path, opened = tmp_path / "m.safetensors", []
    checkpoint.write(path, {"a": torch.zeros(3)}, {"version": 1})

    def replaced_before_it_opens(*arguments, **options):
        opened.append(path)
        if len(opened) == 1:
            checkpoint.write(path, {"a": torch.ones(3 + longer)}, {"version": 2})
            raise RuntimeError("file is smaller than the required mapping size")
        if len(opened) == 2 and not longer:
            found = safe_open(*arguments, **options)
            checkpoint.write(path, {"a": torch.full((3,), 2.0)}, {"version": 3})
            return found
        return safe_open(*arguments, **options)

    monkeypatch.setattr(checkpoint, "safe_open", replaced_before_it_opens)
    weights, header = checkpoint.read(path)
    assert header["version"] == (2 if longer else 3)
    assert weights["a"].tolist() == ([1.0] * 7 if longer else [2.0] * 3)
    assert len(opened) == (2 if longer else 3)
