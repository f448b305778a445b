"""Changing a node safely: plan, transaction, journal, verify.

Knows plans, locks, receipts and roll back, for any back end. Must not know the syntax of any one dataplane.
"""
