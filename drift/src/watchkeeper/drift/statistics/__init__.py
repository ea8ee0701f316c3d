"""Comparing a window with the reference: pure functions, no clock and no database."""
