"""``python -m ferroflow``: the command line."""

from ferroflow.cli.main import main

main()
