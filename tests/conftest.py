"""Fixtures that every kind of test may use."""
