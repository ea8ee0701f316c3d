"""The benchmark: Watchkeeper and its peers, one core each, in one run."""
