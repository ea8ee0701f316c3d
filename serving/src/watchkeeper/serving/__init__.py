"""The serving runtime: MLServer hosts, the way of a request is Watchkeeper's own."""
