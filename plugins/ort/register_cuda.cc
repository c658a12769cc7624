// The ops for ONNX Runtime's CUDA provider: the kernels of common/cuda/ops.h, on its streams.

#include "ort/register_cuda.h"

#include "common/cuda/ops.h"
#include "ort/ort_op.h"

namespace m2f::ort {
namespace {

// Device memory for as long as what is enqueued needs it. From CUDA's own pool, in the order of
// the stream: ONNX Runtime's arena has no promise of that for custom ops.
class Workspace {
 public:
  Workspace(size_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes != 0) error_ = cudaMallocAsync(&memory_, bytes, stream);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    if (memory_ != nullptr) cudaFreeAsync(memory_, stream_);
  }

  void* get() const { return memory_; }
  cudaError_t error() const { return error_; }

 private:
  cudaStream_t stream_;
  void* memory_ = nullptr;
  cudaError_t error_ = cudaSuccess;
};

template <class Op>
struct OnCuda {
  static constexpr const OpSpec& kSpec = Op::kSpec;
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  using Attributes = typename Op::Attributes;

  static m2f::Status read(const AttributeValue values[], Attributes* attributes) {
    return Op::read(values, attributes);
  }

  static m2f::Status run(const Attributes& attributes, const Call& call) {
    typename Op::Plan plan;
    const m2f::Status status = Op::plan(attributes, call.inputs, call.input_count, &plan);
    if (!status.ok()) return status;
    const auto stream = static_cast<cudaStream_t>(call.stream);
    const Workspace workspace(Op::workspace_bytes(attributes, call.inputs), stream);
    cudaError_t code = workspace.error();
    if (code == cudaSuccess) {
      const void* inputs[kMaxInputs];
      for (int64_t i = 0; i < call.input_count; ++i) inputs[i] = call.inputs[i].data;
      constexpr int32_t kOwnChoice = 0;
      code = Op::run(plan, kOwnChoice, inputs, call.output, workspace.get(), stream);
    }
    if (code == cudaSuccess) return {};
    return error("%s: CUDA error %d: %s", kSpec.name, static_cast<int>(code),
                 cudaGetErrorString(code));
  }
};

}  // namespace

Status* add_cuda_ops(const Functions& functions, CustomOpDomain* domain, bool is_first_only) {
  using Attention = OnCuda<m2f::MaskedAttention>;
  using Deformable = OnCuda<m2f::MsDeformAttn>;
  if (Status* status = add<Deformable>(functions, domain, is_first_only)) return status;
  return add<Attention>(functions, domain, is_first_only);
}

}  // namespace m2f::ort
