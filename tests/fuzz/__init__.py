"""Damaged and unusual input, at random: nothing may die, hang, fail raw, or answer wrongly."""

import os

# Before torch is imported: a process that was forked from one with threads can wait for ever.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
