"""What several back ends share: escaping, names, ipset, running programs.

Knows the formats that more than one target uses. Must not know any single back end.
"""
