"""A factory to watch: its machines and their data, their clients, and the story of the loop."""
