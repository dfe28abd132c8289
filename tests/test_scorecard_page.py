"""The scorecard as a page that needs no other file."""

import base64
import io
import re

import pandas as pd
import pytest
from PIL import Image

from sagefm.evaluate import Cohort, Result, markdown
from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.report import scorecard_page

SUMMARY = pd.DataFrame(
    {
        "method": ["<script>base</script>", "ours", "random weights"],
        "kind": ["baseline", "model", "control"],
        "ari": [0.5, 0.6, 0.1],
        "ari_low": [0.4, 0.5, float("nan")],
        "ari_high": [0.6, 0.7, float("nan")],
        "verdict": ["", "undecided: ahead of base (+0.100); behind random weights (-0.010)", ""],
    }
)
RESULT = Result("domains", {"Agreement with labels": SUMMARY}, notes=["5 < 6 spots"])


@pytest.fixture(scope="module")
def cohort():
    return Cohort({"s": simulate(40, seed=1)})


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    place = tmp_path_factory.mktemp("card") / "map_s.png"
    Image.new("RGBA", (300, 100), "red").save(place)
    return place


def test_everything_is_in_the_page(cohort, picture):
    model = SageFM.new(Vocabulary(("A", "B")), Config(widths=(4, 4, 4, 4, 4)))
    model.provenance["slides"] = {"s": {}}
    page = scorecard_page(
        {"domains": RESULT}, cohort, {"ours": model}, {"domains": [picture]}, command="sagefm x"
    )
    assert "<script" not in page
    assert "&lt;script&gt;base" in page
    assert "<small>(0.400 to 0.600)</small>" in page
    assert SUMMARY["verdict"][1] in page
    assert "5 &lt; 6 spots" in page
    assert "was trained or validated on 1 of these slides: s" in page
    assert "<code>sagefm x</code>" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:image/png;base64,)", page)
    [png] = re.findall(r"data:image/png;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(png))) as shown:
        assert shown.size == (300, 100)
        assert shown.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_markdown_says_the_same(cohort, picture):
    text = markdown({"domains": RESULT}, cohort, {}, {"domains": [picture]}, picture.parents[1])
    assert "| **ours** | model | 0.600 (0.500 to 0.700) | undecided: ahead of base" in text
    assert "| *random weights* | control | 0.100 |  |" in text
    assert "- 5 < 6 spots" in text
    assert f"![map_s]({picture.parent.name}/map_s.png)" in text
