"""An exported promptable student with numpy and ONNX Runtime alone: a picture and prompts → masks.

    python sam_onnx_numpy.py export/onnx picture.png --box 20 30 90 110 --out mask.png
    python sam_onnx_numpy.py export/onnx picture.npy --point 64 70 --point 10 10 0 --out mask.npy

The folder has `model.onnx` (or `model.int8.onnx`), the image encoder, and `decoder.onnx`. The encoder runs once a picture, the
decoder once a prompt. Pictures that are no `.npy` (uint8[H, W, 3], RGB) are read and written by Pillow, if there is one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Segmenter:
    """The two files of an exported student.

    Args:
        folder: where they lie.
        encoder: the encoder's file, such as `model.int8.onnx`.
    """

    def __init__(self, folder: str | Path, encoder: str = "model.onnx"):
        self.encoder = ort.InferenceSession(str(Path(folder) / encoder), providers=["CPUExecutionProvider"])
        self.decoder = ort.InferenceSession(str(Path(folder) / "decoder.onnx"), providers=["CPUExecutionProvider"])
        self.input = json.loads(self.encoder.get_modelmeta().custom_metadata_map["input"])
        self.side = self.input["size"][0]

    def look(self, image: np.ndarray) -> None:
        """Embed a picture, uint8[H, W, 3], RGB: its longest side fills the input, the rest is padded."""
        self.size = image.shape[:2]
        scale = self.side / max(self.size)
        self.inner = tuple(int(length * scale + 0.5) for length in self.size)
        square = np.empty((1, 3, self.side, self.side), np.float32)
        square[:] = np.array(self.input["padding"], np.float32)[:, None, None]
        square[0, :, : self.inner[0], : self.inner[1]] = resize(image, self.inner).round().clip(0, 255).transpose(2, 0, 1)
        (self.embedding,) = self.encoder.run(None, {"images": square})

    def masks(self, points=(), labels=(), box=None) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32[4, H, W] in the picture's size and predicted IoU float32[4]: one answer for clear prompts, then three.

        Args:
            points: [[x, y], …] in pixels of the picture.
            labels: of each point: 1 inside, 0 outside.
            box: left, top, right, bottom in pixels of the picture.
        """
        # a box is two points of the labels 2 and 3; without one, a point that is none ends the list
        corners = [[0, 0]] if box is None else [box[:2], box[2:]]
        kinds = [-1] if box is None else [2, 3]
        scale = np.array([self.inner[1] / self.size[1], self.inner[0] / self.size[0]])
        coordinates = np.array([*points, *corners], np.float32)[None] * scale
        low = 4 * self.embedding.shape[-1]
        inputs = {
            "image_embeddings": self.embedding,
            "point_coords": coordinates.astype(np.float32),
            "point_labels": np.array([[*labels, *kinds]], np.float32),
            "mask_input": np.zeros((1, 1, low, low), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        logits, scores = self.decoder.run(None, inputs)
        square = resize(logits[0].transpose(1, 2, 0), (self.side, self.side))
        return resize(square[: self.inner[0], : self.inner[1]], self.size).transpose(2, 0, 1), scores[0]

    def best(self, points=(), labels=(), box=None) -> np.ndarray:
        """The mask bool[H, W] that is meant: of a lone point the likeliest of three, else the one answer."""
        logits, scores = self.masks(points, labels, box)
        lone = box is None and len(points) == 1
        return logits[1 + scores[1:].argmax() if lone else 0] > 0


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, C] → float32[h, w, C], bilinear; antialiased where it shrinks, as Pillow does it."""
    rows, columns = (weights(have, wanted) for have, wanted in zip(image.shape[:2], size, strict=True))
    return np.einsum("hH,HWc,wW->hwc", rows, image.astype(np.float32), columns, optimize=True)


def weights(have: int, wanted: int) -> np.ndarray:
    """float32[wanted, have]: how much each old pixel counts for each new one."""
    scale = have / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    triangle = 1 - np.abs(np.arange(have) + 0.5 - centres[:, None]) / max(scale, 1.0)
    triangle = np.maximum(triangle, 0)
    return (triangle / triangle.sum(1, keepdims=True)).astype(np.float32)


def read(path: str) -> np.ndarray:
    """uint8[H, W, 3], RGB, as the student was taught: upright, of 16 bits the upper 8, transparency over white."""
    if path.endswith(".npy"):
        return np.load(path)
    from PIL import Image, ImageOps

    with open(path, "rb") as file:  # by its name, Pillow 12.3 garbles a TIFF that is turned
        image = Image.open(file)
        image.load()
    tags = image.tag_v2 if image.format == "TIFF" else {}  # 262: what 0 means; 277: channels
    grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if tags.get(277, 1) > 4 or (image.mode in ("I", "F") and not grey):
        raise SystemExit(f"{path}: nobody knows what it looks like. Save it in RGB or grey, with 8 or unsigned 16 bit.")
    if grey:
        values = (np.asarray(image) >> 8).astype(np.uint8)
        upper = Image.fromarray(255 - values if tags.get(262) == 0 else values)
        upper.info = {name: value for name, value in image.info.items() if name != "transparency"}
        image = upper
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.convert("RGB"))


def write(path: str, mask: np.ndarray) -> None:
    """bool[H, W] as `.npy`, or as a black and white picture."""
    if path.endswith(".npy"):
        return np.save(path, mask)
    from PIL import Image

    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("picture")
    parser.add_argument("--encoder", default="model.onnx")
    parser.add_argument("--point", type=float, nargs="+", action="append", default=[], help="x y, and 0 if it is outside")
    parser.add_argument("--box", type=float, nargs=4, help="left top right bottom")
    parser.add_argument("--out", default="mask.png")
    given = parser.parse_args()
    if not given.point and not given.box:
        parser.error("a prompt is needed: --point x y, or --box left top right bottom")
    for point in given.point:
        if len(point) not in (2, 3):
            parser.error(f"--point takes x y, and 0 if it is outside, not {len(point)} numbers")
    for path in (Path(given.folder) / given.encoder, Path(given.folder) / "decoder.onnx", Path(given.picture)):
        if not path.is_file():
            parser.error(f"no file {path}")
    segmenter = Segmenter(given.folder, given.encoder)
    segmenter.look(read(given.picture))
    labels = [point[2] if len(point) > 2 else 1 for point in given.point]
    mask = segmenter.best([point[:2] for point in given.point], labels, given.box)
    write(given.out, mask)
    print(f"{given.out}: {mask.sum()} of {mask.size} pixels")


if __name__ == "__main__":
    main()
