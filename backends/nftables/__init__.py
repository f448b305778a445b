"""The nftables back end: one table a family, one transaction for everything.

Knows nft's syntax and libnftables. Must not know the other back ends.
"""
