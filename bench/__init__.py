"""Benchmarks: `make bench`, or `python -m bench NAME`. They print figures and judge nothing; bars are in docstrings."""
