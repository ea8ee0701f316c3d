"""The command line: shows the state of a system, gives commands, starts the local system."""
