"""Warranty claims of vehicles: the model and a simulated plant."""
