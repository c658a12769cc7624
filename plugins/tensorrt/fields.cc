#include "tensorrt/fields.h"

#include <algorithm>
#include <cstring>

namespace m2f::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

const char* kind_name(AttributeKind kind) {
  switch (kind) {
    case AttributeKind::kInt:
      return "one int32 or int64";
    case AttributeKind::kInts:
      return "int32 or int64 numbers";
    default:
      return "one float32";
  }
}

bool read_ints(const PluginField& field, AttributeValue* value) {
  const int32_t kept = std::min(field.length, kMaxInts);
  for (int32_t i = 0; i < kept; ++i) {
    if (field.type == PluginFieldType::kINT32) {
      value->ints[i] = static_cast<const int32_t*>(field.data)[i];
    } else if (field.type == PluginFieldType::kINT64) {
      value->ints[i] = static_cast<const int64_t*>(field.data)[i];
    } else {
      return false;
    }
  }
  value->count = field.length;
  return true;
}

bool read_field(const PluginField& field, AttributeKind kind, AttributeValue* value) {
  if (field.length < 0 || (field.length > 0 && field.data == nullptr)) return false;
  if (kind == AttributeKind::kInts) return read_ints(field, value);
  if (field.length != 1) return false;
  if (kind == AttributeKind::kInt) return read_ints(field, value);
  if (field.type != PluginFieldType::kFLOAT32) return false;
  value->number = *static_cast<const float*>(field.data);
  return true;
}

int32_t index_of(const OpSpec& spec, const char* name) {
  for (int32_t i = 0; i < spec.attribute_count; ++i) {
    if (std::strcmp(spec.attributes[i].name, name) == 0) return i;
  }
  return -1;
}

}  // namespace

std::array<PluginField, kMaxAttributes> offered_fields(const OpSpec& spec) {
  std::array<PluginField, kMaxAttributes> fields;
  for (int32_t i = 0; i < spec.attribute_count; ++i) {
    const bool is_float = spec.attributes[i].kind == AttributeKind::kFloat;
    fields[i] = {spec.attributes[i].name, nullptr,
                 is_float ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32,
                 spec.attributes[i].kind == AttributeKind::kInts ? 0 : 1};
  }
  return fields;
}

Status read_fields(const OpSpec& spec, const nvinfer1::PluginFieldCollection* fields,
                   AttributeValue values[]) {
  const int32_t count = fields == nullptr ? 0 : fields->nbFields;
  for (int32_t i = 0; i < count; ++i) {
    const PluginField& field = fields->fields[i];
    const int32_t index = index_of(spec, field.name);
    if (index < 0) return error("%s: has no attribute %s", spec.name, field.name);
    const AttributeKind kind = spec.attributes[index].kind;
    if (!read_field(field, kind, &values[index])) {
      return error("%s: attribute %s is %s, got %d of field type %d", spec.name, field.name,
                   kind_name(kind), field.length, static_cast<int>(field.type));
    }
    values[index].is_given = true;
  }
  return complete(spec, values);
}

SavedFields::SavedFields(const OpSpec& spec, const AttributeValue values[]) {
  std::copy(values, values + spec.attribute_count, values_.begin());
  for (int32_t i = 0; i < spec.attribute_count; ++i) {
    if (!values_[i].is_given) continue;
    const AttributeSpec& attribute = spec.attributes[i];
    PluginField& field = fields_[collection_.nbFields++];
    if (attribute.kind == AttributeKind::kFloat) {
      field = {attribute.name, &values_[i].number, PluginFieldType::kFLOAT32, 1};
    } else {
      const bool is_one = attribute.kind == AttributeKind::kInt;
      field = {attribute.name, values_[i].ints, PluginFieldType::kINT64,
               is_one ? 1 : static_cast<int32_t>(values_[i].count)};
    }
  }
  collection_.fields = fields_.data();
}

}  // namespace m2f::tensorrt
