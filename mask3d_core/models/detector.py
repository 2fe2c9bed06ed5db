"""Detection and instance segmentation: torchvision's Mask R-CNN on a simple feature pyramid from a plain transformer.

The pyramid is ViTDet's (Li, Mao, Girshick, He, "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV
2022, arXiv 2203.16527): the encoder's last map, at the stride of a patch, is brought to a quarter, a half, one and two
patches. Mask R-CNN (He et al., ICCV 2017) is torchvision's; its resize and its normalisation are never called, because the
encoder's own come before it. Nothing is normalised over a batch. All sizes below are ours (paper value not known).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.models.config import EncoderConfig, ModelConfig
from mask3d_core.models.encoders import build_vit, encode_levels
from mask3d_core.shapes import Bool, Float

SCALES = (4.0, 2.0, 1.0, 0.5)  # of the patch grid, from the finest level to the coarsest
POOLED = 2  # a fifth level, every second place of the coarsest: for proposals only, as in ViTDet
WHOLE = 4  # the patch grid is padded to multiples of this, so that every level covers the same picture
LOSSES = {"loss_classifier": "class_loss", "loss_box_reg": "box_loss", "loss_mask": "mask_loss",
          "loss_objectness": "objectness_loss", "loss_rpn_box_reg": "proposal_loss"}


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector is.

    Args:
        encoder: the RGB encoder.
        image_size: (height, width) of training; other multiples of the patch work too.
        patch: side of a patch in pixels; 8, 16 or 32.
        color_mean, color_std: belong to the encoder.
        things: class ids that are objects, ascending.
        width: channels of the pyramid and of the heads (256 in ViTDet, where the box head is 4 x as wide, as here).
        anchors: side in pixels of the square anchor of each of the five levels; empty: 1/20, 1/10, 1/5, 2/5 and 4/5 of the
            picture's longer side.
        samples: regions per frame that the heads learn from (512 in torchvision).
        proposals: regions per frame that are looked at (2000 in training and 1000 later in torchvision).
        min_score: detections below this are dropped.
        most: detections kept per picture.
        drop_path: see ``build_vit``.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    image_size: tuple[int, int] = (240, 320)
    patch: int = 16
    color_mean: tuple[float, float, float] = ModelConfig.color_mean
    color_std: tuple[float, float, float] = ModelConfig.color_std
    things: tuple[int, ...] = (0,)
    width: int = 128
    anchors: tuple[float, ...] = ()
    samples: int = 128
    proposals: int = 500
    min_score: float = 0.05
    most: int = 100
    drop_path: float = 0.0

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = []
        if self.patch not in (8, 16, 32):
            found.append(f"a detector's pyramid wants patches of 8, 16 or 32 pixels; got {self.patch}")
        if any(side < 1 or side % self.patch for side in self.image_size):
            found.append(f"image_size must be multiples of the patch ({self.patch}); got {self.image_size}")
        if not self.things or list(self.things) != sorted(set(self.things)) or self.things[0] < 0:
            found.append(f"things must be at least one class id, ascending; got {self.things}")
        found += [f"{name} must be at least 1; got {getattr(self, name)}" for name in ("width", "samples", "proposals", "most")
                  if getattr(self, name) < 1]
        if self.anchors and (len(self.anchors) != len(SCALES) + 1 or min(self.anchors) <= 0):
            found.append(f"anchors must be {len(SCALES) + 1} positive sizes in pixels, or none; got {self.anchors}")
        found += [f"{name} must lie in 0..1, below 1; got {getattr(self, name)}" for name in ("min_score", "drop_path")
                  if not 0 <= getattr(self, name) < 1]
        return found

    def anchor_sizes(self) -> tuple[float, ...]:
        """Side in pixels of the square anchor of each level; two oblong ones of the same area stand beside it."""
        longer = max(self.image_size)
        return self.anchors or tuple(longer / 20 * 2 ** level for level in range(len(SCALES) + 1))


class SimplePyramid(nn.Module):
    """One map at the stride of a patch to five, from a quarter patch to four patches.

    Args:
        width: channels of the map.
        out_channels: of every level (the name is torchvision's).
    """

    def __init__(self, width: int, out_channels: int):
        super().__init__()
        self.out_channels = out_channels
        self.levels = nn.ModuleList(self._level(width, out_channels, scale) for scale in SCALES)

    @staticmethod
    def _level(width: int, out: int, scale: float) -> nn.Module:
        steps: list[nn.Module] = []
        while scale > 1:
            half = width // 2
            steps += [nn.ConvTranspose2d(width, half, 2, stride=2)]
            width, scale = half, scale / 2
            steps += [LayerNorm2d(width), nn.GELU()] if scale > 1 else []
        if scale < 1:
            steps.append(nn.MaxPool2d(2))
        return nn.Sequential(*steps, nn.Conv2d(width, out, 1, bias=False), LayerNorm2d(out),
                             nn.Conv2d(out, out, 3, padding=1, bias=False), LayerNorm2d(out))

    def forward(self, patches: Float[Tensor, "b d rows columns"]) -> OrderedDict[str, Tensor]:
        """Levels "0" (finest) to "3", and "pool", float32.

        Args:
            patches: rows and columns multiples of ``WHOLE``.
        """
        maps = OrderedDict((str(number), level(patches).float()) for number, level in enumerate(self.levels))
        maps["pool"] = F.max_pool2d(maps[str(len(SCALES) - 1)], 1, stride=POOLED)
        return maps


class _InFloat32(nn.Module):
    """A head whose outputs are float32 whatever autocast does inside: in bfloat16 a box is off by pixels."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, *inputs: Any) -> Any:
        found = self.head(*inputs)
        if isinstance(found, Tensor):
            return found.float()
        return tuple([value.float() for value in part] if isinstance(part, list) else part.float() for part in found)


def build_mask_rcnn(config: DetectorConfig, pyramid: SimplePyramid) -> nn.Module:
    """torchvision's Mask R-CNN on the pyramid."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops.poolers import LevelMapper, MultiScaleRoIAlign

    outputs, width = len(config.things) + 1, config.width  # output 0 is "no object"
    anchors = AnchorGenerator(tuple((size,) for size in config.anchor_sizes()), ((0.5, 1.0, 2.0),) * (len(SCALES) + 1))
    pools = [MultiScaleRoIAlign([str(k) for k in range(len(SCALES))], output_size=size, sampling_ratio=2) for size in (7, 14)]
    made = MaskRCNN(
        pyramid, rpn_anchor_generator=anchors, rpn_head=_InFloat32(RPNHead(width, anchors.num_anchors_per_location()[0])),
        rpn_pre_nms_top_n_train=config.proposals, rpn_pre_nms_top_n_test=config.proposals,
        rpn_post_nms_top_n_train=config.proposals, rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=pools[0], box_head=TwoMLPHead(width * 49, 4 * width), box_batch_size_per_image=config.samples,
        box_predictor=_InFloat32(FastRCNNPredictor(4 * width, outputs)), box_score_thresh=config.min_score,
        box_detections_per_img=config.most, mask_roi_pool=pools[1], mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=_InFloat32(MaskRCNNPredictor(width, width, outputs)))
    last = made.roi_heads.box_predictor.head, made.roi_heads.mask_predictor.head
    for layer, std in ((last[0].cls_score, 0.01), (last[0].bbox_pred, 0.001), (last[1].mask_fcn_logits, 0.001)):
        nn.init.normal_(layer.weight, std=std)  # torchvision starts larger; behind layer norms the first mask loss was 5.4
        nn.init.zeros_(layer.bias)
    for pool in pools:  # torchvision would guess the strides from the first picture, and small padded ones mislead it
        pool.scales = [scale / config.patch for scale in SCALES]
        pool.map_levels = LevelMapper(int(math.log2(config.patch / SCALES[0])), int(math.log2(config.patch / SCALES[-1])))
    return made


class Detector(nn.Module):
    """Encoder, pyramid and Mask R-CNN.

    Raises:
        ConfigError: an impossible configuration.
    """

    kind = "detector"

    def __init__(self, config: DetectorConfig):
        super().__init__()
        problems = config.problems()
        if problems:
            raise ConfigError(problems, "DetectorConfig")
        self.config = config
        self.register_buffer("color_mean", torch.tensor(config.color_mean).view(1, 3, 1, 1))
        self.register_buffer("color_std", torch.tensor(config.color_std).view(1, 3, 1, 1))
        self.encoder = build_vit(config.encoder, config.image_size, config.patch, 3, drop_path=config.drop_path)
        if self.encoder.embed_dim % 4:
            raise ConfigError(f"a detector's pyramid halves the encoder's width twice; got {self.encoder.embed_dim}")
        self.rcnn = build_mask_rcnn(config, SimplePyramid(self.encoder.embed_dim, config.width))

    def forward(self, color: Float[Tensor, "b 3 h w"], targets: list[dict[str, Tensor]] | None = None
                ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """In training the losses, otherwise what :meth:`detect` says.

        torchvision averages each loss over the regions that it draws at random in the batch, so a batch cut in two gives
        another step than the whole.

        Args:
            color: 0..1, RGB; height and width multiples of the patch.
            targets: one dictionary per frame, in training only: "boxes" Float (k, 4), left, top, right, bottom in pixels, on
                the pixels' outer edges; "labels" Long (k,), class ids; "masks" (k, h, w), 0 or 1. No object is fine.

        Returns:
            In training scalars by name: class_loss, box_loss, mask_loss, objectness_loss, proposal_loss.

        Raises:
            ConfigError: another size, or targets where none are wanted (or the reverse).
        """
        if self.training != (targets is not None):
            came = f"{'no targets' if targets is None else 'targets'} in {'training' if self.training else 'evaluation'} mode"
            raise ConfigError(f"a detector wants targets in training mode and none in evaluation mode; got {came}")
        if targets is None:
            return self.detect(color)
        place = torch.full((max(self.config.things) + 1,), -1, dtype=torch.int64, device=color.device)
        place[list(self.config.things)] = torch.arange(1, len(self.config.things) + 1, device=color.device)
        targets = [{**target, "labels": place[target["labels"]]} for target in targets]
        _, losses = self._run(color, targets)
        return {LOSSES[name]: value for name, value in losses.items()}

    @torch.no_grad()
    def detect(self, color: Float[Tensor, "b 3 h w"]) -> list[dict[str, Any]]:
        """The objects of each frame, best first.

        Args:
            color: 0..1, RGB; height and width multiples of the patch.

        Returns:
            One dictionary per frame: "boxes" Float (k, 4), left, top, right, bottom in pixels; "labels" Long (k,), class ids;
            "scores" Float (k,), 0..1; "masks" Float (k, 28, 28), how probable the object is at each place *of its box*
            (:func:`paste_mask` draws it at any size); "size", the picture's (height, width).

        Raises:
            ConfigError: another size, or training mode.
        """
        if self.training:
            raise ConfigError("a detector detects in evaluation mode; call model.eval() first")
        classes = torch.tensor(self.config.things, device=color.device)
        found, _ = self._run(color, None)
        return [{"boxes": one["boxes"].float(), "labels": classes[one["labels"] - 1], "scores": one["scores"].float(),
                 "masks": one["masks"][:, 0].float(), "size": tuple(color.shape[-2:])} for one in found]

    def _run(self, color: Tensor, targets: list[dict[str, Tensor]] | None) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """torchvision's two stages on our maps: what was found (in evaluation) and the losses (in training)."""
        from torchvision.models.detection.image_list import ImageList

        patch, size = self.config.patch, tuple(color.shape[-2:])
        if size[0] % patch or size[1] % patch:
            raise ConfigError(f"pictures must be multiples of {patch} pixels; got {size[0]}x{size[1]}")
        patches = encode_levels(self.encoder, (color - self.color_mean) / self.color_std, (len(self.encoder.blocks) - 1,))[0]
        rows, columns = (-side % WHOLE for side in patches.shape[-2:])
        patches = F.pad(patches, (0, columns, 0, rows))
        covered = [side * patch for side in patches.shape[-2:]]
        # anchors ask for the size that the maps cover, boxes are clipped to the picture itself
        images = ImageList(color.new_empty(0, 0, *covered), [size] * len(color))
        maps = self.rcnn.backbone(patches)
        proposals, losses = self.rcnn.rpn(images, maps, targets)
        found, more = self.rcnn.roi_heads(maps, proposals, images.image_sizes, targets)
        return found, {**losses, **more}


def paste_mask(mask: Float[Tensor, "rows columns"], box: Float[Tensor, "4"], size: tuple[int, int],
               threshold: float = 0.5, scale: tuple[float, float] = (1.0, 1.0)) -> Bool[Tensor, "h w"]:
    """A mask within its box as pixels of the picture.

    It inverts the sampling of torchvision's training targets: index i of the model's picture lies at (i - left) / width of the box,
    and index i of one that is drawn ``scale`` times as large at (i + 0.5) / scale - 0.5 of the model's.

    Args:
        mask: probabilities 0..1 over the box.
        box: left, top, right, bottom in pixels of the picture that is drawn.
        size: (height, width) of that picture.
        threshold: pixels above it belong to the object.
        scale: pixels of the picture that is drawn per pixel of the model's, down and across.
    """
    left, top, right, bottom = box.tolist()
    full = torch.zeros(size, dtype=torch.bool, device=mask.device)
    spans = [(max(0, math.ceil(low - 0.5)), min(end, math.ceil(high - 0.5))) for low, high, end in
             ((top, bottom, size[0]), (left, right, size[1]))]  # pixels whose centre lies in the box
    if any(stop <= start for start, stop in spans):
        return full
    (first_row, last_row), (first_column, last_column) = spans
    down, across = (0.5 - 0.5 * factor for factor in scale)
    y = (torch.arange(first_row, last_row, device=mask.device) + down - top) / (bottom - top) * 2 - 1
    x = (torch.arange(first_column, last_column, device=mask.device) + across - left) / (right - left) * 2 - 1
    grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)[None].float()
    with torch.autocast(mask.device.type, enabled=False):
        part = F.grid_sample(mask[None, None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
    full[first_row:last_row, first_column:last_column] = part > threshold
    return full
