"""Damaged and unusual input, at random: nothing may die, hang, fail raw, or answer wrongly."""
