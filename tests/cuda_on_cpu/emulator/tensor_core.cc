#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "emulator/block.h"
#include "emulator/findings.h"
#include "emulator/memory.h"
#include "emulator/ptx.h"
#include "emulator/sites.h"

namespace cuda_on_cpu {
namespace {

constexpr int kRowBytes = 16;  // eight 16-bit numbers

struct MatrixRow {
  const void* row;
  const void* code;
  int count;
  bool transposed;
};

// Memory has 8 times 16 bytes of banks: rows of a matrix that share one and differ wait.
uint64_t conflicts = 0;

uint64_t conflicts_of(const void* const (&rows)[8]) {
  int most = 1;
  for (int i = 0; i < 8; ++i) {
    int in_bank = 1;
    for (int j = 0; j < i; ++j) {
      const auto a = reinterpret_cast<uintptr_t>(rows[i]);
      const auto b = reinterpret_cast<uintptr_t>(rows[j]);
      if (a != b && a / kRowBytes % 8 == b / kRowBytes % 8) ++in_bank;
    }
    most = std::max(most, in_bank);
  }
  return static_cast<uint64_t>(most - 1);
}

// Lane l gets the elements (l / 4, 2 (l % 4)) and the next of each matrix, or of its transpose.
void load_matrices(Warp& warp, unsigned present) {
  if (present != kAllLanes) report("ldmatrix by the lanes %08x only", present);
  const int count = warp.lane(0).input<MatrixRow>().count;
  const bool transposed = warp.lane(0).input<MatrixRow>().transposed;
  for (int matrix = 0; matrix < count; ++matrix) {
    const void* rows[8];
    for (int i = 0; i < 8; ++i) rows[i] = warp.lane(8 * matrix + i).input<MatrixRow>().row;
    conflicts += conflicts_of(rows);
  }
  for (int l = 0; l < kWarpSize; ++l) {
    for (int matrix = 0; matrix < count; ++matrix) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int major = l / 4;
        const int minor = l % 4 * 2 + i;
        const int row = matrix * 8 + (transposed ? minor : major);
        const auto* elements = static_cast<const char*>(warp.lane(row).input<MatrixRow>().row);
        std::memcpy(&pair[i], elements + 2 * (transposed ? major : minor), 2);
      }
      std::memcpy(&warp.lane(l).output<uint32_t[4]>()[matrix], pair, sizeof pair);
    }
  }
}

struct Product {
  uint32_t a[4];
  uint32_t b[2];
  float d[4];
  float (*value_of)(uint16_t);

  float element(const uint32_t* registers, int index) const {
    return value_of(static_cast<uint16_t>(registers[index / 2] >> 16 * (index % 2)));
  }
};

// Tensor cores align all terms of a sum with the largest and cut what lies below float's last
// bit of that; products are exact (Fasi et al., Numerical behavior of NVIDIA tensor cores,
// PeerJ CS 2021). Here eight products at a time, with no extra bits: the worst of them.
float truncating_sum(float start, const double* products, int count) {
  int top = start == 0.0f ? -1000 : std::ilogb(start);
  bool finite = std::isfinite(start);
  double plain = start;
  for (int i = 0; i < count; ++i) {
    finite = finite && std::isfinite(products[i]);
    plain += products[i];
    if (products[i] != 0.0) top = std::max(top, std::ilogb(products[i]));
  }
  if (!finite) return static_cast<float>(plain);
  const auto cut = [&](double x) { return std::trunc(std::ldexp(x, 23 - top)); };
  double sum = cut(start);
  for (int i = 0; i < count; ++i) sum += cut(products[i]);
  const double exact = std::ldexp(sum, top - 23);
  float rounded = static_cast<float>(exact);
  if (std::fabs(double{rounded}) > std::fabs(exact)) rounded = std::nextafter(rounded, 0.0f);
  return rounded;
}

void multiply(Warp& warp, unsigned present) {
  if (present != kAllLanes) report("mma by the lanes %08x only", present);
  float a[16][16];
  float b[16][8];
  for (int l = 0; l < kWarpSize; ++l) {
    const auto& part = warp.lane(l).input<Product>();
    const int group = l / 4;
    const int pair = l % 4 * 2;
    for (int i = 0; i < 8; ++i) {
      a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = part.element(part.a, i);
    }
    for (int i = 0; i < 4; ++i) b[pair + i % 2 + i / 2 * 8][group] = part.element(part.b, i);
  }
  for (int l = 0; l < kWarpSize; ++l) {
    for (int i = 0; i < 4; ++i) {
      const int row = l / 4 + i / 2 * 8;
      const int column = l % 4 * 2 + i % 2;
      double products[16];
      for (int k = 0; k < 16; ++k) products[k] = double{a[row][k]} * b[k][column];
      float sum = warp.lane(l).input<Product>().d[i];
      for (int k = 0; k < 16; k += 8) sum = truncating_sum(sum, products + k, 8);
      warp.lane(l).output<float[4]>()[i] = sum;
    }
  }
}

}  // namespace

void ldmatrix(uint32_t* fragments, int count, const void* row, bool transposed,
              const void* code) {
  if (current().lane() < 8 * count) {  // the others' addresses are not used
    if (!is_shared(row)) report_at(code, "ldmatrix of %p, which is not shared memory", row);
    touch(row, kRowBytes, Access::kRead, code);
  }
  const MatrixRow part = {row, code, count, transposed};
  current_warp().meet(Collective::kLdmatrix, kAllLanes, &part, sizeof part, fragments,
                      sizeof(uint32_t) * static_cast<size_t>(count), &load_matrices);
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, float (*value_of)(uint16_t)) {
  Product part;
  std::memcpy(part.a, a, sizeof part.a);
  std::memcpy(part.b, b, sizeof part.b);
  std::memcpy(part.d, d, sizeof part.d);
  part.value_of = value_of;
  current_warp().meet(Collective::kMma, kAllLanes, &part, sizeof part, d, sizeof part.d,
                      &multiply);
}

void async_copy(void* to, const void* from, int bytes, int source_bytes, const void* code) {
  current().copies.add(to, from, bytes, source_bytes, code);
}

void async_commit() { current().copies.commit(); }

void async_wait(int pending, const void* code, const char* file, int line) {
  if (!left_out(file, line)) current().copies.wait(pending, code);
}

// How often rows of a matrix have waited for each other, since the last call.
extern "C" __attribute__((visibility("default"))) uint64_t cuda_on_cpu_take_conflicts() {
  return std::exchange(conflicts, 0);
}

}  // namespace cuda_on_cpu
