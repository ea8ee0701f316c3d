"""The report about a version, for people: a text and a page with plots, from the gate's report."""
