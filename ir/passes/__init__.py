"""Passes over the IR: pure functions `Program -> Program` that keep the meaning.

One file a pass; its docstring is its contract. Must not know where a program came from or who will run it.
"""
