"""A real MLflow server for the tests that need its numbers of versions."""

pytest_plugins = ["mlflow_server"]  # see tests/support
