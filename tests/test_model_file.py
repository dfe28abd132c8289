"""Model files whose content is not what a model declares: one line, before any of it is used."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.nn import checkpoint
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.reference import ReferenceSpots

GENES = ("LACTB", "CARM1", "RFX1", "TP53", "EGFR", "KRT8")
WIDTHS = {"published": (5, 4, 4, 4, 5), "context": (5, 5, 4)}


@pytest.fixture(params=list(WIDTHS))
def path(request, tmp_path):
    model = SageFM.new(Vocabulary(GENES), Config(request.param, WIDTHS[request.param]))
    embeddings = np.random.default_rng(0).normal(size=(40, model.width))
    model.trained_on = ReferenceSpots.learn([embeddings], ["a"])
    model.save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def rewritten(path, change=None, weights=None):
    """Change the header or the weights of a model file, as another tool would."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["sagefm"])
    tensors = load_file(path)
    (change or (lambda _: None))(header)
    (weights or (lambda _: None))(tensors)
    save_file(tensors, path, metadata={"sagefm": json.dumps(header)})
    return path


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        SageFM.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_without_a_checksum_is_read(path):
    before = SageFM.load(path).fingerprint
    assert SageFM.load(rewritten(path)).fingerprint == before


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors is 0, not 1 to 1,000"),
        ({"n_neighbors": -3}, "n_neighbors is -3"),
        ({"n_neighbors": 15.0}, r"n_neighbors is 15\.0, not a whole number"),
        ({"n_neighbors": True}, "n_neighbors is True, not a whole number"),
        ({"n_neighbors": "15"}, "n_neighbors is '15'"),
        ({"n_neighbors": 10**6}, "n_neighbors is 1000000"),
        ({"n_neighbors": None}, "n_neighbors is None"),
        ({"widths": [4.0] * 5}, r"widths\[0\] is 4\.0"),
        ({"widths": [-1] * 5}, r"widths\[0\] is -1"),
        ({"widths": [10**9] * 5}, r"widths\[0\] is 1000000000"),
        ({"widths": []}, "to 64 widths, not 0"),
        ({"widths": [4] * 1000}, "to 64 widths, not 1000"),
        ({"widths": "44444"}, "widths is '44444', not a list"),
        ({"network": ["published"]}, r"network is \['published'\], not text"),
        ({"network": "transformer"}, "no network 'transformer' in this version .*upgrade"),
        ({"depth": 3}, "'depth' is no entry"),
    ],
)
def test_odd_entries_of_the_config_are_refused(path, value, message):
    refused(rewritten(path, lambda header: header["config"].update(value)), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["symbols"].__setitem__(3, 7), r"symbols\[3\] is 7, not text"),
        (lambda h: h["symbols"].__setitem__(3, ""), "'', which is no name of a gene"),
        (lambda h: h["symbols"].__setitem__(3, "A\nB"), "no name of a gene"),
        (lambda h: h["symbols"].__setitem__(3, "\ud800"), "no name of a gene"),
        (lambda h: h["symbols"].__setitem__(3, GENES[0]), "LACTB more than once"),
        (lambda h: h["ensembl"].__setitem__(2, ["x"]), r"ensembl\[2\] is \['x'\], not text"),
        (lambda h: h.update(symbols=list(GENES[:5])), "5 symbols, but 6 ids"),
        (lambda h: h.update(symbols={}), "symbols is {}, not a list"),
        (lambda h: h.update(provenance=[]), "provenance is .*not a table"),
        (lambda h: h.update(config=None), "config is None, not a table"),
        (lambda h: h.pop("config"), "config is missing"),
        (lambda h: h.update(format="1\n2"), r"has format '1\\n2', this version reads 1"),
        (lambda h: h.update(kind=["x"]), "of the kind"),
        (lambda h: h.update(progress={}), "state of a run; give best.safetensors"),
    ],
)
def test_odd_headers_are_refused(path, change, message):
    refused(rewritten(path, change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(first=w["first"].to(torch.float8_e4m3fn)), "type float8_e4m3fn"),
        (lambda w: w.update(first=w["first"].int()), "type int32"),
        (lambda w: w.update(first=w["first"].bool()), "type bool"),
        (lambda w: w.update(first=w["first"].double() * 1e300), "NaN or infinite"),
        (lambda w: w.update(first=w["first"] * torch.nan), "NaN or infinite"),
        (lambda w: w.update(first=w["first"][:0]), "first has shape"),
        (lambda w: w.pop("first"), "first has shape None"),
        (lambda w: w.update(second=torch.ones(3)), "holds 'second'"),
        (lambda w: w.pop("trained_on.axes"), "training spots is damaged .axes is missing"),
        (lambda w: w.update({"trained_on.axes": torch.ones(10)}), "training spots is damaged"),
        (lambda w: w.update({"trained_on.axes": w["trained_on.axes"][:, :0]}), "training spots"),
        (
            lambda w: w.update({"trained_on.spots": w["trained_on.spots"].bfloat16()}),
            "training spots is damaged",
        ),
        (
            lambda w: w.update({"trained_on.spots": w["trained_on.spots"].to(torch.complex64)}),
            "spots holds complex64, not numbers",
        ),
    ],
)
def test_odd_weights_are_refused(path, change, message):
    refused(rewritten(path, weights=change), message)


def test_weights_of_other_precisions_are_read(path):
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        rewritten(path, weights=lambda w, kind=kind: w.update(first=w["first"].to(kind)))
        assert SageFM.load(path).network.first.dtype == torch.float32


def test_a_flipped_bit_anywhere_is_found(path):
    """Also one that leaves weights and symbols that a model could have."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    places = [content.index(b"LACTB"), *range(8 + size, len(content), len(content) // 20)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        refused(path, "fails its checksum|not a whole safetensors file")


def test_what_cannot_be_a_file_of_weights_is_refused(path, tmp_path):
    refused(tmp_path, "no such file")
    for content in (b"", b"\xff" * 100, struct.pack("<Q", 2**60) + b"{}", b"[]" * 50):
        path.write_bytes(content)
        refused(path, "not a whole safetensors file")


def test_provenance_can_be_anything(path, slide):
    odd = {"slides": [1, {}], "validation_loss": "low", "neighbor_mean_loss": [], "x": None}
    model = SageFM.load(rewritten(path, lambda header: header.update(provenance=odd)))
    assert model.provenance == odd
    model.save(path)
    assert SageFM.load(path).provenance == odd


def test_a_config_made_in_python_is_checked():
    vocabulary = Vocabulary(GENES)
    assert SageFM.new(vocabulary, Config("context", (5, 5, 4), 8)).config.n_neighbors == 8
    with pytest.raises(InputError, match=r"n_neighbors is 7, but the network context needs .* 8"):
        SageFM.new(vocabulary, Config("context", (5, 5, 4), n_neighbors=7))
    with pytest.raises(InputError, match="context has 3 to 64 widths, not 2"):
        Config("context", (5, 4))
    with pytest.raises(InputError, match="n_neighbors is '15', not a whole number"):
        Config(n_neighbors="15")
    assert Config(widths=[4, 4], n_neighbors=np.int64(3)) == Config(widths=(4, 4), n_neighbors=3)


def test_the_checksum_is_of_header_and_weights(tmp_path):
    checkpoint.write(tmp_path / "a.safetensors", {"a": torch.ones(3)}, {"note": "é"})
    weights, header = checkpoint.read(tmp_path / "a.safetensors")
    assert header["note"] == "é"
    assert weights["a"].tolist() == [1, 1, 1]
