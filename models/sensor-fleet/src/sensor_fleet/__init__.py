"""Failures of machines from their sensors: the model and a simulated fleet."""
