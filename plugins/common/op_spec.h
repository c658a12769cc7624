#pragma once

#include <cstddef>
#include <cstdint>

#include "common/status.h"
#include "common/storage.h"

// What an op.toml says, for adapters: ONNX Runtime's, TensorRT's. The tables themselves are
// generated (ops/*/spec.h). An adapter is written once over them, and repeats no name, type or
// default; it turns what its framework has into AttributeValues and TensorViews.

namespace m2f {

constexpr int32_t kMaxTypes = 4;       // type variables of one op
constexpr int32_t kMaxInts = 16;       // numbers of one attribute
constexpr int32_t kMaxAttributes = 8;  // of one op
constexpr int32_t kMaxRank = 4;        // of one description
constexpr int32_t kMaxAxes = 8;        // of one tensor, the flattened ones included
constexpr int32_t kMaxInputs = 16;     // of one call, the variadic ones included

enum class AttributeKind : int32_t { kInt, kInts, kFloat };

// How many tensors a description stands for; only the last may be other than one.
enum class Presence : int32_t { kRequired, kOptional, kVariadic };

struct TensorSpec {
  const char* name;
  const char* axes;  // one letter each: "NSC"; a first '*' is any axes, seen as one: "*C"
  int32_t type;      // which of a signature's types
  Presence presence;

  constexpr int32_t rank() const {
    int32_t count = 0;
    while (axes[count] != '\0') ++count;
    return count;
  }
  constexpr bool is_flattened() const { return axes[0] == '*'; }
  constexpr bool is_variadic() const { return presence == Presence::kVariadic; }
};

struct AttributeSpec {
  const char* name;
  AttributeKind kind;
  bool is_required;
  float default_number;  // of a kFloat that is not required
};

// One choice of types that the op can be called with.
struct Signature {
  Storage types[kMaxTypes];
};

struct OpSpec {
  const char* name;
  const char* domain;
  int32_t version;
  const TensorSpec* inputs;
  int32_t input_count;  // a variadic one counts once
  const TensorSpec* outputs;
  int32_t output_count;
  const AttributeSpec* attributes;
  int32_t attribute_count;
  const Signature* signatures;
  int32_t signature_count;

  template <size_t kInputs, size_t kOutputs, size_t kAttributes, size_t kSignatures>
  constexpr OpSpec(const char* op, const char* op_domain, int32_t op_version,
                   const TensorSpec (&in)[kInputs], const TensorSpec (&out)[kOutputs],
                   const AttributeSpec (&given)[kAttributes],
                   const Signature (&choices)[kSignatures])
      : name(op),
        domain(op_domain),
        version(op_version),
        inputs(in),
        input_count(kInputs),
        outputs(out),
        output_count(kOutputs),
        attributes(given),
        attribute_count(kAttributes),
        signatures(choices),
        signature_count(kSignatures) {
    static_assert(kAttributes <= kMaxAttributes, "raise kMaxAttributes");
  }

  constexpr bool is_variadic() const { return inputs[input_count - 1].is_variadic(); }
  constexpr int32_t required_inputs() const {
    return input_count - (inputs[input_count - 1].presence == Presence::kRequired ? 0 : 1);
  }

  // The description of the index-th tensor of a call.
  constexpr const TensorSpec& input(int32_t index) const {
    return inputs[index < input_count ? index : input_count - 1];
  }
  constexpr Storage input_type(int32_t signature, int32_t index) const {
    return signatures[signature].types[input(index).type];
  }
  constexpr Storage output_type(int32_t signature, int32_t index) const {
    return signatures[signature].types[outputs[index].type];
  }
};

// One attribute of a node.
struct AttributeValue {
  bool is_given = false;
  int64_t count = 0;            // of numbers in `ints`; more than kMaxInts are not kept
  int64_t ints[kMaxInts] = {};  // a kInt is the first
  float number = 0.0f;          // a kFloat
};

// Says which attribute is missing; gives those that are absent their default.
inline Status complete(const OpSpec& spec, AttributeValue values[]) {
  for (int32_t i = 0; i < spec.attribute_count; ++i) {
    const AttributeSpec& attribute = spec.attributes[i];
    if (values[i].is_given) continue;
    if (attribute.is_required) {
      return error("%s: needs the attribute %s", spec.name, attribute.name);
    }
    values[i].number = attribute.default_number;
  }
  return {};
}

// One tensor of a call, with as many sizes as its description has axes.
struct TensorView {
  const void* data;
  Storage type;
  int64_t dims[kMaxRank];
};

}  // namespace m2f
