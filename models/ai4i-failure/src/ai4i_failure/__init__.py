"""Machine failures in milling: the model and a simulated plant."""
