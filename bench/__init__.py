"""What a network costs, and how long it takes: on this machine, beside others, with proof.

Reading order: shapes and parts (what the graph is), cost and savings (what it must do).

`ops.py` is a script of its own: it times the native ops alone.
"""
