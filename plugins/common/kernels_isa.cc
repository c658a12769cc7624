// The CPU kernels for one instruction set. Compiled once per set, with M2F_ISA naming it.
//
// Everything here and in what it includes has internal linkage, the table apart: the linker may
// keep any one of several equal inline functions, and must not keep one that needs AVX-512 for
// all. So nothing of the C++ library is used here.

#include "common/kernels.h"
#include "fused/group_norm/cpu_simd.h"
#include "fused/layer_norm/cpu_simd.h"
#include "fused/linear/cpu_simd.h"
#include "fused/quantize/cpu_simd.h"
#include "fused/window_attention/cpu_simd.h"
#include "images/instance_simd.h"
#include "images/panoptic_simd.h"
#include "images/resize_simd.h"
#include "images/semantic_simd.h"
#include "ops/masked_attention/cpu_simd.h"
#include "ops/ms_deform_attn/cpu_simd.h"

#define M2F_JOIN_(a, b) a##b
#define M2F_JOIN(a, b) M2F_JOIN_(a, b)
#define M2F_TEXT_(a) #a
#define M2F_TEXT(a) M2F_TEXT_(a)

namespace m2f {

extern const Kernels M2F_JOIN(kKernels_, M2F_ISA);
const Kernels M2F_JOIN(kKernels_, M2F_ISA) = {
    M2F_TEXT(M2F_ISA),
    kLanes,
    ms_deform_attn::pack,
    ms_deform_attn::attend,
    masked_attention::see,
    masked_attention::attend,
    layer_norm::normalise,
    group_norm::measure,
    group_norm::normalise,
    quantize::quantise,
    window_attention::attend,
    images::panoptic::compete,
    images::semantic::classify,
    images::instance::binarise,
    images::resize::antialiased,
    linear::kPanel,
    linear::pack,
    linear::multiply,
    linear::erf_of,
};

}  // namespace m2f
