"""Sizes and saving that all plots share."""

import matplotlib as mpl

from sagefm import pl


def test_a_notebook_shows_all_figures_and_not_only_the_first():
    with mpl.rc_context():
        with pl.journal():
            mpl.interactive(True)  # as the backend of a notebook does with its first figure
        assert mpl.is_interactive()
