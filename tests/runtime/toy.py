"""A bundle without weights: query 0 is where the image is red, 1 green, 2 blue."""

import numpy as np
import onnx
import onnx.parser

from m2f.bundle import InputProfile, Manifest, Range, Source, write_manifest, writing
from m2f.config import Category, Metadata, ModelConfig, Preprocess, ResNetConfig

CATEGORIES = (
    Category(id=3, name="apple", colour=(220, 20, 60), is_thing=True),
    Category(id=7, name="frog", colour=(0, 160, 30), is_thing=True),
    Category(id=21, name="sky", colour=(70, 130, 180), is_thing=False),
)

# Padded to multiples of 32; a mask logit is (mean of 4x4 pixels - 127.5) / 8, and -16 beyond
# image_size. Class logits are 8 for the query's own class and 0 for the others.
GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
toy (uint8[N, H, W, 3] image, int64[M, 2] image_size)
  => (float[N, 3, 4] class_logits, float[N, 3, h, w] mask_logits)
<
  int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4},
  int64 zero_ = {0}, int64 one_ = {1}, int64[1] stride = {32}, float grey = {127.5},
  float eight = {8.0}, float none = {-16.0}, int64[4] no_pad = {0, 0, 0, 0},
  int64[2] no_pad_ = {0, 0}, int64[1] three = {3},
  float[1, 3, 4] classes = {8, 0, 0, 0, 0, 8, 0, 0, 0, 0, 8, 0}
>
{
  x = Cast<to=1>(image)
  nchw = Transpose<perm=[0, 3, 1, 2]>(x)
  shape = Shape(nchw)
  n = Slice(shape, zero, one)
  hw = Slice(shape, two, four)
  minus = Neg(hw)
  below = Mod(minus, stride)
  pads = Concat<axis=0>(no_pad, no_pad_, below)
  padded = Pad(nchw, pads)
  size = Add(hw, below)
  H_ = Gather(size, zero_)
  W_ = Gather(size, one_)
  y = Range(zero_, H_, one_)
  x_ = Range(zero_, W_, one_)
  valid_h = Slice(image_size, zero, one, one)
  valid_w = Slice(image_size, one, two, one)
  in_rows = Less(y, valid_h)
  in_columns = Less(x_, valid_w)
  in_rows_ = Unsqueeze(in_rows, axes_row)
  in_columns_ = Unsqueeze(in_columns, axes_column)
  inside = And(in_rows_, in_columns_)
  centred = Sub(padded, grey)
  logits = Div(centred, eight)
  masked = Where(inside, logits, none)
  mask_logits = AveragePool<kernel_shape=[4, 4], strides=[4, 4]>(masked)
  repeats = Concat<axis=0>(n, one, one)
  class_logits = Tile(classes, repeats)
}
"""


def model(*, image_size="optional"):
    """The network; ``image_size`` as an input that is "optional", "required" or "absent"."""
    graph = onnx.parser.parse_model(GRAPH)
    add = graph.graph.initializer.append
    add(onnx.numpy_helper.from_array(np.array([1, 3], np.int64), "axes_row"))
    add(onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes_column"))
    if image_size != "required":
        everything = np.full((1, 2), 1 << 40, np.int64)
        add(onnx.numpy_helper.from_array(everything, "image_size"))
    if image_size == "absent":
        del graph.graph.input[1]
    return graph


def write(
    path,
    *,
    batch=(1, 4),
    height=(1, 4096),
    width=(1, 4096),
    preprocess=None,
    tasks=("panoptic", "instance", "semantic"),
    image_size="optional",
):
    """Writes the bundle and returns its folder."""
    profile = InputProfile(
        batch=Range(min=batch[0], max=batch[1]),
        height=Range(min=height[0], max=height[1]),
        width=Range(min=width[0], max=width[1]),
    )
    manifest = Manifest(
        name="toy",
        created="2026-01-01T00:00:00Z",
        source=Source(name="toy", format="official", sha256="0" * 64),
        model=ModelConfig(backbone=ResNetConfig(), classes=3),
        metadata=Metadata(
            task=tasks[0],
            tasks=tasks,
            categories=CATEGORIES,
            preprocess=preprocess or Preprocess(resize="none"),
        ),
        profile=profile,
        form="portable",
        opset=17,
    )
    with writing(path) as folder:
        onnx.save(model(image_size=image_size), folder / "model.onnx")
        write_manifest(folder, manifest)
    return path


def picture(height=64, width=96):
    """Red on the left third, green in the middle, blue on the right; and where each is."""
    image = np.zeros((height, width, 3), np.uint8)
    bounds = [0, width // 3 // 4 * 4, 2 * width // 3 // 4 * 4, width]
    expected = np.zeros((height, width), np.int32)
    for k in range(3):
        part = np.s_[:, bounds[k] : bounds[k + 1]]
        image[part][..., k] = 255
        expected[part] = k
    return image, expected
