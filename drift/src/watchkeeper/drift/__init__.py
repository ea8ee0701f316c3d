"""The sidecar of a serving process: ship its records, watch for drift, ask for a training."""
