"""Drift statistics: pure functions of columns and reports. Nothing here reads a clock or a file."""
