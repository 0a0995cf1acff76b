"""Feast: its objects, its registry and its API, with an offline and an online store of ours.

Nothing is imported here: Feast takes seconds to load, and finds the stores by their class paths.
"""
