// Compares the fast kernels with the plain loops through the C API, on odd shapes. For machines
// where the Python tests do not run: cross-compiled and emulated. Prints the kernels' name.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

extern "C" {
const char* m2f_kernels(int isa);
int m2f_ms_deform_attn(int isa, int storage, int threads, int value_storage, float value_scale,
                       const void* value, const int64_t* value_shape, const void* sampling,
                       const int64_t* sampling_shape, const int64_t* levels,
                       int64_t level_count, int64_t heads, int64_t points, void* output,
                       char* message, size_t message_size);
int m2f_masked_attention(int isa, int storage, int threads, const void* q,
                         const int64_t* q_shape, const void* k, const int64_t* k_shape,
                         const void* v, const int64_t* v_shape, const void* mask_logits,
                         const int64_t* mask_shape, int64_t heads, void* output, char* message,
                         size_t message_size);
}

namespace {

using Floats = std::vector<float>;

// 150 roundings of values below 5: sums of at most 130 terms, softmax included.
constexpr float kBound = 150 * 5.0f / (1 << 24);

Floats draw(int64_t count, float scale) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal(0.0f, scale);
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

bool is_close(const Floats& a, const Floats& b, const char* op, int64_t depth) {
  float worst = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i] - b[i]) <= worst)) worst = std::fabs(a[i] - b[i]);
  }
  if (worst <= kBound) return true;
  std::printf("%s, D = %d: off by %g, allowed %g\n", op, static_cast<int>(depth), worst,
              kBound);
  return false;
}

bool check(int64_t depth) {
  const int64_t heads = 3, points = 4, queries = 13, keys = 130, s = 121, c = heads * depth;
  char message[256] = "";
  int failed = 0;

  const int64_t levels[] = {4, 5, 8, 10, 7, 3};
  const int64_t value_shape[] = {1, s, c}, sampling_shape[] = {1, s, heads * points * 9};
  const Floats value = draw(s * c, 1.0f);
  Floats sampling = draw(s * sampling_shape[2], 3.0f);
  sampling[0] = NAN;
  sampling[3] = INFINITY;
  Floats deformed[2] = {Floats(value.size()), Floats(value.size())};
  for (int i = 0; i < 2; ++i) {
    failed |= m2f_ms_deform_attn(-i, 0, 2, 0, 1.0f, value.data(), value_shape, sampling.data(),
                                 sampling_shape, levels, 3, heads, points, deformed[i].data(),
                                 message, sizeof message);
  }
  constexpr float kScale = 1.0f / 32;
  std::vector<int8_t> coarse(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    coarse[i] = static_cast<int8_t>(std::lround(value[i] / kScale));
  }
  Floats dequantised[2] = {Floats(value.size()), Floats(value.size())};
  for (int i = 0; i < 2; ++i) {
    failed |= m2f_ms_deform_attn(-i, 0, 2, 3, kScale, coarse.data(), value_shape,
                                 sampling.data(), sampling_shape, levels, 3, heads, points,
                                 dequantised[i].data(), message, sizeof message);
  }

  const int64_t q_shape[] = {1, queries, c}, k_shape[] = {1, keys, c};
  const int64_t mask_shape[] = {1, queries, keys};
  const Floats q = draw(queries * c, 1.0f), k = draw(keys * c, 1.0f), v = draw(keys * c, 1.0f);
  const Floats mask = draw(queries * keys, 1.0f);
  Floats attended[2] = {Floats(q.size()), Floats(q.size())};
  for (int i = 0; i < 2; ++i) {
    failed |= m2f_masked_attention(-i, 0, 2, q.data(), q_shape, k.data(), k_shape, v.data(),
                                   k_shape, mask.data(), mask_shape, heads, attended[i].data(),
                                   message, sizeof message);
  }
  if (failed) std::printf("%s\n", message);
  const bool same = is_close(deformed[0], deformed[1], "MSDeformAttn", depth) &&
                    is_close(dequantised[0], dequantised[1], "MSDeformAttn int8", depth);
  return is_close(attended[0], attended[1], "MaskedAttention", depth) && same && !failed;
}

}  // namespace

int main() {
  std::printf("%s\n", m2f_kernels(0));
  bool is_right = true;
  for (const int64_t depth : {1, 17, 32, 48}) is_right &= check(depth);
  return is_right ? 0 : 1;
}
