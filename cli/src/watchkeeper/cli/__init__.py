"""The command line: what runs, why, and what a person wants instead."""
