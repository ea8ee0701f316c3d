"""The benchmark of the request path: Watchkeeper and its peers, one core each, in one run."""
