"""The eBPF back end: C generated for one program, and the tables it reads.

Knows BPF program types, maps, hooks and generations. Must not know the other back ends.
"""
