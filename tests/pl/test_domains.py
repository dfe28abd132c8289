"""The markers of domains, their contacts, and how stable their number is."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest

import sagefm
from sagefm import InputError
from sagefm.pp import simulate


@pytest.fixture(scope="module")
def described():
    slide = simulate(150, n_domains=3, seed=6)
    slide.obs["domain"] = slide.obs["domain"].cat.rename_categories({"D1": "$a$ with a long name"})
    return sagefm.tl.describe(slide, "domain")


def written(figure):
    figure.draw_without_rendering()
    found = figure.findobj(mpl.text.Text)
    return [text for text in found if text.get_text() and text.get_visible()]


def test_genes_are_rows_and_domains_columns(described):
    ax = sagefm.pl.domain_markers(described, n_genes=2)
    genes = [label.get_text() for label in ax.get_yticklabels()]
    top = described.markers.groupby("domain", sort=False).head(2)["gene"]
    assert genes == list(dict.fromkeys(top))
    assert len(ax.get_xticklabels()) == 3
    dots = ax.collections[0]
    wide = described.expression.pivot(index="domain", columns="gene")["fraction"]
    fractions = wide.loc[list(described.names["domain"]), genes].to_numpy().ravel()
    np.testing.assert_allclose(dots.get_sizes() / dots.get_sizes().max(),
                               fractions / fractions.max(), rtol=1e-6)  # fmt: skip


def test_what_is_not_significant_is_pale(described):
    table = described.contacts.assign(q=1.0)
    ax = sagefm.pl.contacts(replace(described, contacts=table))
    assert "none significant" in ax.get_title()
    assert (ax.images[0].get_alpha() < 0.5).all()
    table.loc[table.index[1], "q"] = 0.01
    ax = sagefm.pl.contacts(replace(described, contacts=table))
    assert "pale: not significant" in ax.get_title()
    i, j = (list(described.names["domain"]).index(table[name].iloc[1])
            for name in ("domain", "other"))  # fmt: skip
    assert ax.images[0].get_alpha()[i, j] == ax.images[0].get_alpha()[j, i] == 1
    assert {text.get_text() for text in ax.texts} == {"*"}
    assert len(ax.texts) == 2


@pytest.mark.parametrize("draw", [sagefm.pl.domain_markers, sagefm.pl.contacts])
def test_they_fit_a_column_and_names_are_shown_as_they_are(described, draw):
    figure = draw(described).figure
    assert figure.get_size_inches()[0] * 25.4 <= 85.1
    assert min(text.get_fontsize() for text in written(figure)) >= 6
    assert not any(text._preprocess_math(text.get_text())[1] for text in written(figure))


def test_mistakes_are_named(described):
    with pytest.raises(InputError, match="give a whole number from 1 on"):
        sagefm.pl.domain_markers(described, n_genes=0)
    with pytest.raises(InputError, match="no gene is higher in a domain"):
        sagefm.pl.domain_markers(replace(described, markers=described.markers.iloc[:0]))
