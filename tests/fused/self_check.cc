// Compares the fast kernels with the plain loops through the C API, on odd shapes. For machines
// where the Python tests do not run: cross-compiled and emulated. Prints the kernels' name.

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
int m2f_layer_norm(int isa, int threads, const float* x, const int64_t* x_shape,
                   const float* weight, const int64_t* weight_shape, const float* bias,
                   const int64_t* bias_shape, float epsilon, float* output, char* message,
                   size_t message_size);
int m2f_linear(int isa, int threads, const float* x, const int64_t* x_shape,
               const float* weight, const int64_t* weight_shape, const float* bias,
               const int64_t* bias_shape, const float* residual, const int64_t* residual_shape,
               int64_t activation, float* output, char* message, size_t message_size);
int m2f_group_norm(int isa, int threads, const float* x, const int64_t* x_shape,
                   const float* weight, const int64_t* weight_shape, const float* bias,
                   const int64_t* bias_shape, const float* coarse, const int64_t* coarse_shape,
                   int64_t groups, float epsilon, int64_t activation, float* output,
                   char* message, size_t message_size);
int m2f_quantize(int isa, int type, int threads, const float* x, int64_t count, float scale,
                 const void* zero, int64_t activation, void* output, char* message,
                 size_t message_size);
}

namespace {

using Floats = std::vector<float>;

// 150 roundings of values below 5: sums of at most 81 terms, softmax included.
constexpr float kBound = 150 * 5.0f / (1 << 24);

// `normalised` of tests/tolerance.py, for means of 504 values and all else below 5.
constexpr float kNormBound = 1300.0f / (1 << 24);

// `linear` of tests/tolerance.py, on both sides: 40 products and a bias, magnitudes of 50
// together.
constexpr float kLinearBound = 5000.0f / (1 << 24);

Floats draw(int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// Runs the fast kernels and the plain loops, run(isa, output, message).
template <class Run>
bool agree(const char* what, size_t count, float bound, const Run& run) {
  Floats found[2] = {Floats(count), Floats(count)};
  for (int i = 0; i < 2; ++i) {
    char message[256] = "";
    if (run(-i, found[i].data(), message) != 0) {
      std::printf("%s: %s\n", what, message);
      return false;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (std::fabs(found[0][i] - found[1][i]) <= bound) continue;
    std::printf("%s: %g is not %g\n", what, found[0][i], found[1][i]);
    return false;
  }
  return true;
}

bool check_windows(int64_t depth, int64_t window, int64_t shift) {
  const int64_t height = 11, width = 15, heads = 7, c = heads * depth, t = window * window;
  const int64_t qkv_shape[] = {1, height, width, 3 * c}, padding_shape[] = {3, c};
  const int64_t bias_shape[] = {heads, t, t};
  const Floats qkv = draw(height * width * 3 * c), padding = draw(3 * c);
  const Floats bias = draw(heads * t * t);
  return agree("WindowAttention", qkv.size() / 3, kBound, [&](int isa, float* to, char* text) {
    return m2f_window_attention(isa, 2, qkv.data(), qkv_shape, padding.data(), padding_shape,
                                bias.data(), bias_shape, window, shift, to, text, 256);
  });
}

bool check_norms(int64_t channels) {
  const int64_t height = 14, width = 18, size = 3 * channels * height * width;
  const int64_t x_shape[] = {1, 3 * channels, height, width}, c_shape[] = {3 * channels};
  const int64_t coarse_shape[] = {1, 3 * channels, height / 2, width / 2};
  const int64_t row_shape[] = {size / (3 * channels), 3 * channels};
  const Floats x = draw(size), coarse = draw(size / 4);
  const Floats weight = draw(3 * channels), bias = draw(3 * channels);
  const auto rows = [&](int isa, float* to, char* text) {
    return m2f_layer_norm(isa, 2, x.data(), row_shape, weight.data(), c_shape, bias.data(),
                          c_shape, 1e-5f, to, text, 256);
  };
  const auto groups = [&](int isa, float* to, char* text) {
    return m2f_group_norm(isa, 2, x.data(), x_shape, weight.data(), c_shape, bias.data(),
                          c_shape, coarse.data(), coarse_shape, 3, 1e-5f, 1, to, text, 256);
  };
  return agree("LayerNorm", x.size(), kNormBound, rows) &&
         agree("GroupNorm", x.size(), kNormBound, groups);
}

bool check_linear(int64_t columns, int64_t activation) {
  const int64_t rows = 29, inner = 40;
  const int64_t x_shape[] = {rows, inner}, weight_shape[] = {inner, columns};
  const int64_t bias_shape[] = {columns}, residual_shape[] = {rows, columns};
  const Floats x = draw(rows * inner), weight = draw(inner * columns);
  const Floats bias = draw(columns), residual = draw(rows * columns);
  return agree("Linear", residual.size(), kLinearBound, [&](int isa, float* to, char* text) {
    return m2f_linear(isa, 2, x.data(), x_shape, weight.data(), weight_shape, bias.data(),
                      bias_shape, residual.data(), residual_shape, activation, to, text, 256);
  });
}

// Equal where nothing is done before: GELU's own error may tip a number over.
bool check_quantize(int type, int64_t activation) {
  const int64_t count = 16384 + 37;
  const Floats x = draw(count);
  const uint8_t zero = 100;
  const size_t size = x.size();
  const float bound = activation == 2 ? 1.0f : 0.0f;
  return agree("Quantize", size, bound, [&](int isa, float* to, char* text) {
    std::vector<uint8_t> bytes(size);
    const int status = m2f_quantize(isa, type, 2, x.data(), count, 0.013f, &zero, activation,
                                    bytes.data(), text, 256);
    for (size_t i = 0; i < size; ++i) {
      to[i] = type == 3 ? static_cast<int8_t>(bytes[i]) : bytes[i];
    }
    return status;
  });
}

}  // namespace

int main() {
  std::printf("%s\n", m2f_kernels(0));
  bool is_right = true;
  for (const int64_t depth : {1, 17, 32}) {
    for (const int64_t window : {1, 7, 8, 9})
      is_right &= check_windows(depth, window, window / 2);
  }
  for (const int64_t channels : {1, 2}) is_right &= check_norms(channels);
  for (const int64_t columns : {3, 24, 37}) {
    for (const int64_t activation : {0, 1, 2}) is_right &= check_linear(columns, activation);
  }
  for (const int type : {3, 4}) {
    for (const int64_t activation : {0, 1, 2}) is_right &= check_quantize(type, activation);
  }
  return is_right ? 0 : 1;
}
