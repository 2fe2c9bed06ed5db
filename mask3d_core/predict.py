"""A fine-tuned model on ordinary pictures: a file or a folder of any size in, class ids, metres or objects out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.errors import Mask3DError
from mask3d_core.frames import FARTHEST_PNG, IGNORE_LABEL, Intrinsics, nearest_indices
from mask3d_core.files import write_json
from mask3d_core.objects import decode_mask
from mask3d_core.sources.images import read_color

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
FIELD_OF_VIEW = 60.0  # degrees, horizontal, where no camera is given
DEPTH_PICTURES = {1000.0: "depth_mm", 100.0: "depth_cm"}  # units of the 16-bit PNG per metre, and what it is called
STRIP = 64  # rows of a large picture whose classes are found at a time


@dataclass(frozen=True)
class PicturePrediction:
    """What a model says of one picture, at the picture's own size.

    Args:
        name: of the picture, for the files that are written of it.
        color: uint8 (H, W, 3), or None where it was dropped.
        size: (H, W).
        semantic: uint8 (H, W) class ids, or None.
        confidence: float32 (H, W), probability of that class, 0..1, or None.
        depth: float32 (H, W) metres, or None.
        depth_units: of the 16-bit PNG per metre: 1000, or 100 of a model whose range goes beyond 65 m.
        objects: detected objects as COCO results (without image id), or None.
        class_names: by class id.
        notes: what was assumed, in words.
        file_name: of the picture, with its ending; empty: the name.
    """

    name: str
    color: np.ndarray | None
    size: tuple[int, int]
    semantic: np.ndarray | None = None
    confidence: np.ndarray | None = None
    depth: np.ndarray | None = None
    objects: list[dict[str, Any]] | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    file_name: str = ""
    depth_units: float = 1000.0

    def without_picture(self) -> PicturePrediction:
        """The same without the picture, so that many can be kept."""
        return replace(self, color=None)


def find_pictures(path: str | Path) -> list[Path]:
    """The picture itself, or all pictures of a folder, by name.

    Raises:
        Mask3DError: nothing there, or no picture in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise Mask3DError("a picture or a folder of pictures", "nothing there", "Check the path.", path)
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    if not found:
        raise Mask3DError(f"pictures ({', '.join(ENDINGS)})", "none in this folder", "Give the folder that holds them.", path)
    return found


def output_names(files: Sequence[Path]) -> list[str]:
    """What the results of each picture are called: its name without ending; where two would be called the same, also on a
    disk that tells no capitals apart, the ending joins in (a.jpg and a.png: a_jpg and a_png).
    """
    names = [file.stem for file in files]
    while True:
        counts = Counter(name.casefold() for name in names)
        longer = [f"{file.stem}_{file.suffix[1:]}" if counts[name.casefold()] > 1 and file.suffix else name
                  for file, name in zip(files, names)]
        if longer == names:
            return names
        names = longer


def read_picture(file: str | Path) -> np.ndarray:
    """A photograph as a viewer shows it, turned as its EXIF orientation says: uint8 (H, W, 3), RGB.

    Raises:
        FrameError: it cannot be read.
    """
    return read_color(file, is_turned=True)


def working_size(height: int, width: int, image_size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The size at which a picture is shown to the model: its own shape, about as many pixels as in training, whole patches."""
    scale = (image_size[0] * image_size[1] / (height * width)) ** 0.5
    return tuple(max(1, round(side * scale / patch)) * patch for side in (height, width))


@torch.inference_mode()
def predict_picture(model: torch.nn.Module, record: dict[str, Any], color: np.ndarray, name: str = "",
                    intrinsics: Intrinsics | None = None) -> PicturePrediction:
    """Predict one picture.

    Args:
        model, record: as ``load_finetuned`` gave them.
        color: uint8 (H, W, 3), RGB, any size.
        name: for the files that are written of it.
        intrinsics: the camera of this picture; only depth wants it. None: a horizontal field of view of 60 degrees, said.
    """
    height, width = color.shape[:2]
    size = working_size(height, width, model.config.image_size, model.config.patch)
    place = next(model.parameters()).device
    picture = torch.from_numpy(np.ascontiguousarray(color)).to(place).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    names, task = tuple(record.get("class_names", ())), record["task"]
    if task == "segment":
        ids, confidence = surest_class(model(picture)[0].float(), (height, width))
        return PicturePrediction(name, color, (height, width), ids, confidence, class_names=names)
    if task == "depth":
        camera, notes = intrinsics, ()
        if camera is None:
            focal = width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
            camera, notes = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2), (
                f"no camera given: a horizontal field of view of {FIELD_OF_VIEW:.0f} degrees was assumed, and metres depend on it",)
        seen = torch.from_numpy(camera.resized(size[0] / height, size[1] / width).as_array())[None].to(place)
        depth = model.metres(model(picture), seen)[0].cpu().numpy()
        depth = depth[nearest_indices(size[0], height)][:, nearest_indices(size[1], width)]
        far = record.get("training", {}).get("depth", {}).get("max_depth", 0.0) > FARTHEST_PNG / 1000
        return PicturePrediction(name, color, (height, width), depth=depth, notes=notes, depth_units=100.0 if far else 1000.0)
    return PicturePrediction(name, color, (height, width), objects=detected(model, picture, (height, width)), class_names=names)


def surest_class(logits: Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of every pixel of a larger picture, strip by strip: memory for all classes at the size of a photograph
    is never asked for.

    Args:
        logits: Float (classes, h, w).
        size: (height, width), to which they are enlarged bilinearly.

    Returns:
        uint8 (height, width) class ids and float32 probabilities, 0..1.
    """
    height, width = size
    wide = F.interpolate(logits[None], (logits.shape[1], width), mode="bilinear", align_corners=False)[0]
    ids, confidence = np.empty(size, np.uint8), np.empty(size, np.float32)
    for first in range(0, height, STRIP):
        rows = torch.arange(first, min(first + STRIP, height), device=logits.device)
        place = ((rows + 0.5) * (logits.shape[1] / height) - 0.5).clamp(0, logits.shape[1] - 1)
        above = place.floor().long()
        part = torch.lerp(wide[:, above], wide[:, (above + 1).clamp(max=logits.shape[1] - 1)], (place - above)[None, :, None])
        surest, chosen = part.softmax(dim=0).max(dim=0)
        ids[first:first + STRIP], confidence[first:first + STRIP] = chosen.byte().cpu().numpy(), surest.cpu().numpy()
    return ids, confidence


def detected(model: torch.nn.Module, picture: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """A detector's objects as COCO results at the picture's own size."""
    from mask3d_core.evaluation.detection import coco_results

    return coco_results(model.detect(picture), size)[0]


def predict_folder(model: torch.nn.Module, record: dict[str, Any], path: str | Path, intrinsics: Intrinsics | None = None
                   ) -> Iterator[PicturePrediction]:
    """Predict a picture or all pictures of a folder, one after the other.

    Raises:
        Mask3DError: nothing there; a picture that cannot be read is named.
    """
    files = find_pictures(path)
    for file, name in zip(files, output_names(files)):
        yield replace(predict_picture(model, record, read_picture(file), name, intrinsics), file_name=file.name)


def write_prediction(made: PicturePrediction, out: str | Path) -> list[Path]:
    """Write the values (not the pictures to look at): class ids as 8-bit PNG, metres as NPZ and as 16-bit PNG
    in millimetres (of a model whose range goes beyond 65 m in centimetres, and so named; 65535 is never written),
    objects as 16-bit PNG (0 = nothing, k = the picture's k-th object of ``objects.json``; where two overlap, the surer one).

    Objects of all pictures go into one file, see :func:`write_objects`; the classes' names, see :func:`write_classes`.
    """
    from PIL import Image

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    if made.semantic is not None:
        written.append(out / f"{made.name}_classes.png")
        Image.fromarray(made.semantic).save(written[-1])
    if made.depth is not None:
        written.append(out / f"{made.name}_{DEPTH_PICTURES[made.depth_units]}.png")
        Image.fromarray(np.clip(np.rint(made.depth * made.depth_units), 1, FARTHEST_PNG).astype(np.uint16)).save(written[-1])
        written.append(out / f"{made.name}_depth.npz")
        np.savez_compressed(written[-1], depth=made.depth)
    if made.objects is not None:
        written.append(out / f"{made.name}_objects.png")
        Image.fromarray(object_ids(made.objects, made.size)).save(written[-1])
    return written


def object_ids(objects: Sequence[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """COCO results of one picture, best first, as uint16 (H, W): 0 = nothing, k = the k-th; the earlier one where two overlap."""
    ids = np.zeros(size, np.uint16)
    for k in range(len(objects), 0, -1):
        ids[decode_mask(objects[k - 1]["segmentation"])] = k
    return ids


def write_classes(class_names: Sequence[str], out: str | Path) -> Path:
    """``classes.json``: what the ids in ``*_classes.png`` mean, and the id that stands for no class."""
    path = Path(out) / "classes.json"
    write_json(path, {"classes": {str(k): name for k, name in enumerate(class_names)}, "ignore_id": IGNORE_LABEL})
    return path


def write_objects(made: list[PicturePrediction], out: str | Path) -> Path:
    """COCO's two files in one folder: ``objects.json`` (results) and ``pictures.json`` (images and categories)."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results = [{"image_id": k, **entry} for k, one in enumerate(made) for entry in one.objects or []]
    images = [{"id": k, "file_name": one.file_name or one.name, "height": one.size[0], "width": one.size[1]}
              for k, one in enumerate(made)]
    (out / "objects.json").write_text(json.dumps(results))
    categories = [{"id": k, "name": name} for k, name in enumerate(made[0].class_names)] if made else []
    write_json(out / "pictures.json", {"images": images, "categories": categories})
    return out / "objects.json"
