"""Helpers that tests import; no tests in here."""
