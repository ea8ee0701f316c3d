"""Building the images of all components and bringing them to a cluster."""
