"""A machine-learning pipeline described once, in one folder, and kept right by Prefect."""

__version__ = "0.1.0"
