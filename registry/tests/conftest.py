"""Real servers: an MLflow for the tests that need its numbers of versions, and an S3 service."""

pytest_plugins = ["mlflow_server", "object_store"]  # see tests/support
