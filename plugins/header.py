"""The ops' descriptions for native code: ``spec.h`` beside each ``op.toml``.

    python -m m2f.plugins.header

writes them anew. They are kept in the repository, so that native code builds without Python;
a test holds them equal to what this module makes of the descriptions.
"""

from collections.abc import Iterator
from pathlib import Path

from m2f.plugins.spec import FUSED, OPS, AttributeSpec, OpSpec, TensorSpec

_STORAGE = {
    "float32": "kFloat32",
    "float16": "kFloat16",
    "bfloat16": "kBFloat16",
    "int8": "kInt8",
    "uint8": "kUInt8",
}
_KIND = {"int": "kInt", "ints": "kInts", "float": "kFloat"}


def folder_of(spec: OpSpec) -> Path:
    """Where the op's description and sources are."""
    return spec.path.parent


def cpp_from_spec(spec: OpSpec) -> str:
    """The header of one op."""
    return "\n".join([*_lines(spec), ""])


def _lines(spec: OpSpec) -> Iterator[str]:
    variables = list(spec.types)
    yield "#pragma once"
    yield ""
    yield "// Made from op.toml by `python -m m2f.plugins.header`; change it there."
    yield "// clang-format off"
    yield ""
    yield '#include "common/op_spec.h"'
    yield ""
    yield f"namespace m2f::{folder_of(spec).name} {{"
    yield ""
    yield from _indices("Input", [tensor.name for tensor in spec.inputs])
    yield from _indices("Attribute", [attribute.name for attribute in spec.attributes])
    yield from _table("TensorSpec", "kInputs", (_tensor(t, variables) for t in spec.inputs))
    yield from _table("TensorSpec", "kOutputs", (_tensor(t, variables) for t in spec.outputs))
    yield from _table("AttributeSpec", "kAttributes", map(_attribute, spec.attributes))
    choices = [[f"Storage::{_STORAGE[s[v]]}" for v in variables] for s in spec.signatures()]
    yield from _table("Signature", "kSignatures", (f"{{{{{', '.join(c)}}}}}" for c in choices))
    yield f'constexpr OpSpec kSpec = {{"{spec.name}", "{spec.domain}", {spec.version},'
    yield "                         kInputs, kOutputs, kAttributes, kSignatures};"
    yield ""
    yield f"}}  // namespace m2f::{folder_of(spec).name}"


def _indices(kind: str, names: list[str]) -> Iterator[str]:
    """An enumeration of positions."""
    yield f"enum {kind} : int32_t {{"
    for name in names:
        yield f"  k{kind}{''.join(word.capitalize() for word in name.split('_'))},"
    yield "};"
    yield ""


def _table(kind: str, name: str, rows: Iterator[str]) -> Iterator[str]:
    yield f"constexpr {kind} {name}[] = {{"
    for row in rows:
        yield f"    {row},"
    yield "};"
    yield ""


def _tensor(tensor: TensorSpec, variables: list[str]) -> str:
    presence = (
        "kVariadic" if tensor.variadic else "kOptional" if tensor.optional else "kRequired"
    )
    place = variables.index(tensor.type)
    return f'{{"{tensor.name}", "{"".join(tensor.dims)}", {place}, Presence::{presence}}}'


def _attribute(attribute: AttributeSpec) -> str:
    required = "true" if attribute.is_required else "false"
    default = float(attribute.default or 0)
    kind = _KIND[attribute.type]
    return f'{{"{attribute.name}", AttributeKind::{kind}, {required}, {default!r}f}}'


def main() -> None:
    """Writes the header of every op."""
    for spec in OPS + FUSED:
        (folder_of(spec) / "spec.h").write_text(cpp_from_spec(spec), encoding="utf-8")


if __name__ == "__main__":
    main()
