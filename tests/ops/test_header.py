"""What native code is told of the ops is what their op.toml says."""

import pytest

from m2f.plugins import FUSED, MASKED_ATTENTION, MS_DEFORM_ATTN, OPS
from m2f.plugins.header import cpp_from_spec


@pytest.mark.parametrize("spec", OPS + FUSED, ids=lambda spec: spec.name)
def test_the_header_is_current(spec):
    found = (spec.path.parent / "spec.h").read_text(encoding="utf-8")
    assert found == cpp_from_spec(spec), "run python -m m2f.plugins.header"


def test_signatures_are_all_choices_of_types():
    plain = [{"T": name} for name in ("float32", "float16", "bfloat16")]
    assert MASKED_ATTENTION.signatures() == plain
    assert MS_DEFORM_ATTN.signatures() == [
        *({"T": t["T"], "V": t["T"]} for t in plain),
        *({"T": t["T"], "V": "int8"} for t in plain),
    ]


def test_an_attribute_with_a_default_need_not_be_given():
    required = {a.name for a in MS_DEFORM_ATTN.attributes if a.is_required}
    assert required == {"heads", "points"}
    (scale,) = (a for a in MS_DEFORM_ATTN.attributes if a.name == "value_scale")
    assert scale.default == 1.0
