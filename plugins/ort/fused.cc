#include "ort/fused.h"

#include "ort/ort_op.h"

namespace m2f::ort {

Status* add_fused_ops(const Functions& functions, SessionOptions* options) {
  // Sessions share it, and it has to live as long as the longest of them.
  static CustomOpDomain* domain = nullptr;
  if (domain == nullptr) {
    CustomOpDomain* made = nullptr;
    if (Status* status = functions.create_custom_op_domain("m2f.cpu", &made)) return status;
    domain = made;
  }
  return functions.add_custom_op_domain(options, domain);
}

}  // namespace m2f::ort
