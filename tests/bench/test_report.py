"""What a report says of itself."""

from m2f.bench.checks import Check
from m2f.bench.cost import Cost
from m2f.bench.profiling import Profile, Row
from m2f.bench.report import Timed
from m2f.bench.timing import Times

CHECK = Check(against="PyTorch", class_error=0.0, mask_error=0.0, limit=1e-3)


def test_a_disturbed_profile_is_told():
    row = Row(name="all", ms=30.0, cost=Cost(), peak=None, bandwidth=0.0)
    parts = Profile(parts=(), kinds=(), ops=(), total=row)
    timed = Timed(
        name="a",
        role="bundle",
        precision="fp32",
        check=CHECK,
        times=Times((10.0, 12.0, 15.0)),
        parts=parts,
    )
    assert timed.slowdown == 30 / 12
