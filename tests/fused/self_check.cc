// Compares WindowAttention's fast kernels with its plain loops through the C API, on odd
// shapes. For machines where the Python tests do not run: cross-compiled and emulated. Prints
// the kernels' name.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

extern "C" {
const char* m2f_kernels(int isa);
int m2f_window_attention(int isa, int threads, const float* qkv, const int64_t* qkv_shape,
                         const float* padding, const int64_t* padding_shape,
                         const float* position_bias, const int64_t* bias_shape, int64_t window,
                         int64_t shift, float* output, char* message, size_t message_size);
}

namespace {

using Floats = std::vector<float>;

// 150 roundings of values below 5: sums of at most 81 terms, softmax included.
constexpr float kBound = 150 * 5.0f / (1 << 24);

Floats draw(int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

bool check(int64_t depth, int64_t window, int64_t shift) {
  const int64_t height = 11, width = 15, heads = 7, c = heads * depth, t = window * window;
  const int64_t qkv_shape[] = {1, height, width, 3 * c}, padding_shape[] = {3, c};
  const int64_t bias_shape[] = {heads, t, t};
  const Floats qkv = draw(height * width * 3 * c), padding = draw(3 * c);
  const Floats bias = draw(heads * t * t);
  Floats found[2] = {Floats(qkv.size() / 3), Floats(qkv.size() / 3)};
  char message[256] = "";
  for (int i = 0; i < 2; ++i) {
    if (m2f_window_attention(-i, 2, qkv.data(), qkv_shape, padding.data(), padding_shape,
                             bias.data(), bias_shape, window, shift, found[i].data(), message,
                             sizeof message)) {
      std::printf("%s\n", message);
      return false;
    }
  }
  for (size_t i = 0; i < found[0].size(); ++i) {
    if (std::fabs(found[0][i] - found[1][i]) <= kBound) continue;
    std::printf("D = %d, w = %d: %g is not %g\n", static_cast<int>(depth),
                static_cast<int>(window), found[0][i], found[1][i]);
    return false;
  }
  return true;
}

}  // namespace

int main() {
  std::printf("%s\n", m2f_kernels(0));
  bool is_right = true;
  for (const int64_t depth : {1, 17, 32}) {
    for (const int64_t window : {1, 7, 8, 9}) is_right &= check(depth, window, window / 2);
  }
  return is_right ? 0 : 1;
}
