"""Real servers for the tests of the model, see tests/support at the top of the repository."""

pytest_plugins = ["databases", "mlflow_server"]
