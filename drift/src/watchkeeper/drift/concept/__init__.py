"""Concept drift: the live loss of labelled rows against what the gate measured."""
