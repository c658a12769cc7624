// Compares image processing with plain loops through the C API, on odd sizes. For machines
// where the Python tests do not run: cross-compiled and emulated. Prints the kernels' name.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "images/images.h"

using namespace m2f::images;

struct Call {
  int32_t isa = 0;
  int32_t threads = 2;
  char message[256] = "";
};

extern "C" {
const char* m2f_kernels(int isa);
int m2f_panoptic(Call*, const Geometry*, const Planes*, const float*, const panoptic::Rules*,
                 uint16_t*, int64_t*);
int m2f_semantic(Call*, const Geometry*, const Planes*, const float*, int64_t, int32_t,
                 int32_t*);
int m2f_instance(Call*, const Geometry*, const Planes*, uint8_t*, double*, int64_t*);
int m2f_resize(Call*, const resize::Image*, const resize::Slot*, int32_t);
}

namespace {

using Floats = std::vector<float>;

constexpr int64_t kQueries = 9, kClasses = 11;

// [h, w] linearly resized to [H, W], of which the top left is returned.
Floats resized(const Floats& from, const int64_t* size, const int64_t* to, const int64_t* cut) {
  Floats out(static_cast<size_t>(cut[0] * cut[1]));
  for (int64_t y = 0; y < cut[0]; ++y) {
    const Tap row = linear_tap(y, static_cast<float>(size[0]), to[0], size[0] - 1);
    for (int64_t x = 0; x < cut[1]; ++x) {
      const Tap column = linear_tap(x, static_cast<float>(size[1]), to[1], size[1] - 1);
      const auto at = [&](int64_t i) {
        const float* line = from.data() + i * size[1];
        return interpolate(line[column.low], line[column.high], column.low_weight,
                           column.high_weight);
      };
      out[static_cast<size_t>(y * cut[1] + x)] =
          interpolate(at(row.low), at(row.high), row.low_weight, row.high_weight);
    }
  }
  return out;
}

// How often two decisions differ; printed if more than one in a thousand (ties).
bool agree(const char* what, int64_t differing, int64_t pixels) {
  if (differing * 1000 <= pixels) return true;
  std::printf("%s: %d of %d differ\n", what, static_cast<int>(differing),
              static_cast<int>(pixels));
  return false;
}

bool check(const Geometry& size) {
  const int64_t mask = size.mask[0] * size.mask[1], pixels = size.output[0] * size.output[1];
  std::mt19937 generator(0);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  Floats masks(static_cast<size_t>(kQueries * mask)), weights(kQueries * kClasses);
  for (float& x : masks) x = normal(generator);
  for (float& x : weights) x = std::fabs(normal(generator));
  int64_t index[kQueries];
  std::vector<Floats> full;
  for (int64_t q = 0; q < kQueries; ++q) {
    index[q] = q;
    const Floats plane(masks.begin() + q * mask, masks.begin() + (q + 1) * mask);
    const Floats middle = resized(plane, size.mask, size.middle, size.valid);
    full.push_back(resized(middle, size.valid, size.output, size.output));
  }

  Call call;
  const Planes planes = {masks.data(), index, kQueries};
  std::vector<uint16_t> codes(static_cast<size_t>(pixels));
  std::vector<int32_t> labels(static_cast<size_t>(pixels));
  const int64_t row_bytes = (size.output[1] + 7) / 8;
  std::vector<uint8_t> bits(static_cast<size_t>(kQueries * size.output[0] * row_bytes));
  int64_t counts[3 * kQueries], inside[kQueries];
  double total[kQueries];
  const panoptic::Rules rules = {0.5f, 0, 0};
  if (m2f_panoptic(&call, &size, &planes, weights.data(), &rules, codes.data(), counts) != 0 ||
      m2f_semantic(&call, &size, &planes, weights.data(), kClasses, 0, labels.data()) != 0 ||
      m2f_instance(&call, &size, &planes, bits.data(), total, inside) != 0) {
    std::printf("%s\n", call.message);
    return false;
  }

  int64_t winners = 0, classes = 0, members = 0;
  for (int64_t p = 0; p < pixels; ++p) {
    int64_t winner = 0, label = 0;
    float best = -1.0f, most = -1.0f;
    for (int64_t c = 0; c < kClasses; ++c) {
      float sum = 0.0f;
      for (int64_t q = 0; q < kQueries; ++q) {
        const float logit = full[static_cast<size_t>(q)][static_cast<size_t>(p)];
        sum += weights[static_cast<size_t>(q * kClasses + c)] * sigmoid(logit);
      }
      if (sum > most) most = sum, label = c;
    }
    for (int64_t q = 0; q < kQueries; ++q) {
      const float logit = full[static_cast<size_t>(q)][static_cast<size_t>(p)];
      const float claim = sigmoid(logit) * weights[static_cast<size_t>(q)];
      if (claim > best) best = claim, winner = q;
      const int64_t y = p / size.output[1], x = p % size.output[1];
      const int64_t byte = (q * size.output[0] + y) * row_bytes + x / 8;
      members += (bits[static_cast<size_t>(byte)] >> (7 - x % 8) & 1) != (logit > 0.0f);
    }
    winners += codes[static_cast<size_t>(p)] / 2 != winner;
    classes += labels[static_cast<size_t>(p)] != label;
  }
  return agree("panoptic", winners, pixels) & agree("semantic", classes, pixels) &
         agree("instance", members, kQueries * pixels);
}

// A flat image stays flat, and what it does not fill becomes zero.
bool check_resize() {
  const std::vector<uint8_t> image(31 * 43 * 3, 201);
  std::vector<uint8_t> slot(64 * 96 * 3, 7);
  Call call;
  const resize::Image from = {image.data(), 31, 43};
  const resize::Slot to = {slot.data(), 57, 91, 64, 96};
  int64_t wrong = m2f_resize(&call, &from, &to, 0);
  for (int64_t i = 0; i < 64 * 96 * 3; ++i) {
    const bool is_filled = i / (96 * 3) < 57 && i % (96 * 3) < 91 * 3;
    wrong += slot[static_cast<size_t>(i)] != (is_filled ? 201 : 0);
  }
  return agree("resize", wrong * 1000, 1);
}

}  // namespace

int main() {
  std::printf("%s\n", m2f_kernels(0));
  const bool is_right = check({{13, 17}, {13, 17}, {52, 68}, {50, 61}, {71, 99}}) &
                        check({{13, 17}, {13, 17}, {52, 68}, {52, 68}, {52, 68}}) &
                        check({{13, 17}, {13, 17}, {52, 68}, {52, 68}, {9, 5}}) &
                        check_resize();
  return is_right ? 0 : 1;
}
