"""The tutorial runs as it stands."""

import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), names)
    plt.close("all")
    assert "(600, 2)" in capsys.readouterr().out
    assert (tmp_path / "domains.png").stat().st_size > 10_000
