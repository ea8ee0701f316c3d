"""A single-node Kubernetes cluster with KServe and Envoy Gateway, in namespaces of its own."""
