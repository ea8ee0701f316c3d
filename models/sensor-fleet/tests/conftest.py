"""Real database servers for the tests of the fleet, see tests/support at the top."""

pytest_plugins = ["databases"]
