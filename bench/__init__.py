"""What a network costs, and how long it takes: on this machine, beside others, with proof.

Reading order: shapes and parts (what a graph is), cost and savings (what it must do); machine
(what is possible), profiling and stages (where the time goes); checks, contestants, peers and
race (who is timed, and who is not), entries (what of ours takes part); benchmark (all of it),
report and plotting. README.md describes the report's JSON.

Scripts beside them time single ops and post-processing: ``python bench/ops.py``.
"""

from m2f.bench.benchmark import Options, bench
from m2f.bench.report import Report

__all__ = ["Options", "Report", "bench"]
