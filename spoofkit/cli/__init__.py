"""The command line: Typer verbs, messages and exit codes."""
