"""The engine of ``make demo`` and ``make traffic``: plants, clients, labels, and the whole loop."""
