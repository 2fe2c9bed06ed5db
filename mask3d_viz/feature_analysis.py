"""What a session's RGB encoders keep, worked out and cached: features, components, nearest patches, the depth probe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.features import RGBEncoder, feature_function, patch_features, raw_patches
from mask3d_core.evaluation.neighbours import (PatchTruth, agreement, nearest_patches, patch_truth,
                                               random_neighbours, same_place)
from mask3d_core.evaluation.probes import ProbeConfig, ProbeFrames, ProbeResult, probe_depth
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.splits import TEST, TRAIN, VAL
from mask3d_core.training.pretraining import step_zero
from mask3d_viz.features import Components, aligned, brightness_of, main_components
from mask3d_viz.session import Session

GALLERY = 24  # frames at most in which neighbours are searched and to which components are fitted
CACHED = 12  # (encoder, layer) pairs whose features are kept
QUERIES = 1000  # patches at most whose neighbours' agreement is measured
SIDES = ("a", "b", "pixels")
ENOUGH = 40  # session frames from which the probe uses them; below, it renders rooms
ROOMS = {"train": 36, "val": 10, "test": 20}  # rooms rendered for the probe
ROOMS_SEED = 3301


@dataclass(frozen=True)
class Encoder:
    """An RGB encoder with where it comes from.

    Args:
        encoder: itself. model: whose it is.
        words: what it is, for captions.
        note: what a reader must know of it, or "".
    """

    encoder: RGBEncoder
    model: Mask3D
    words: str
    note: str = ""


@dataclass(frozen=True)
class Look:
    """All that is shown of one frame at one layer.

    Args:
        key: equal keys, equal looks.
        frames: numbers: the gallery, and the frame itself last where it is not in it.
        frame: number of the frame.
        grid: (rows, columns).
        layer: negative, from the last.
        encoders: A and B.
        colors: uint8 (f, h, w, 3).
        features: side to Float (f, n, d), centred over the gallery.
        scores: side to Float (f, n, 3), for the pictures.
        components: side to its components; likeness is with A's.
        truth: of all patches of all frames.
        agreement: side, or "random", to the shares of nearest patches that agree, and "place".
    """

    key: tuple
    frames: tuple[int, ...]
    frame: int
    grid: tuple[int, int]
    layer: int
    encoders: tuple[Encoder, Encoder]
    colors: np.ndarray
    features: dict[str, Tensor]
    scores: dict[str, Tensor]
    components: dict[str, Components]
    truth: PatchTruth
    agreement: dict[str, dict[str, float]]

    @property
    def place(self) -> int:
        """Where the frame stands among ``frames``."""
        return self.frames.index(self.frame)

    def others(self, count: int = 2) -> list[int]:
        """Places of further frames to show beside it: evenly spread over the gallery, the frame itself left out."""
        rest = [place for place in range(len(self.frames)) if place != self.place]
        return [rest[((k + 1) * len(rest)) // (count + 1)] for k in range(count)] if len(rest) >= count else rest

    def nearest(self, side: str, patch: int, count: int) -> list[tuple[int, int, float]]:
        """The nearest patches of other frames to one of the frame's: (place of the frame, patch, cosine).

        Raises:
            ConfigError: there is no other frame.
        """
        features, n = self.features[side], self.grid[0] * self.grid[1]
        pictures = torch.arange(len(self.frames)).repeat_interleave(n)
        similarity, index = nearest_patches(features[self.place, patch][None], features.flatten(0, 1), count,
                                            torch.tensor([self.place]), pictures)
        return [(int(i) // n, int(i) % n, float(s)) for i, s in zip(index[0], similarity[0])]

    def compared(self, patch: int, place: int, other: int) -> dict[str, float]:
        """What is known of a neighbour beside its query: depth ratio, angle between normals (degrees), same label."""
        n = self.grid[0] * self.grid[1]
        first, second = self.place * n + patch, place * n + other
        found = {"ratio": float(self.truth.depth[second] / self.truth.depth[first])}
        cosine = float((self.truth.normal[first] * self.truth.normal[second]).sum().clamp(-1, 1))
        found["angle"] = float(np.degrees(np.arccos(cosine)))
        if self.truth.label is not None:
            mine, its = int(self.truth.label[first]), int(self.truth.label[second])
            found["label"] = float(mine == its) if mine >= 0 and its >= 0 else float("nan")
        return {name: value for name, value in found.items() if np.isfinite(value)}


class FeatureAnalysis:
    """Features of a session's frames, cached. One call at a time, from one worker thread.

    Args:
        session: whose frames and checkpoints.
        gallery: frames at most, evenly spread.
    """

    def __init__(self, session: Session, gallery: int = GALLERY):
        self.session, self.limit = session, gallery
        self._frames: dict[tuple, tuple[np.ndarray, PatchTruth]] = {}
        self._features: OrderedDict[tuple, dict[int, Tensor]] = OrderedDict()
        self._bases: OrderedDict[tuple, tuple] = OrderedDict()
        self._twins: dict[str, tuple[Mask3D, Encoder]] = {}

    # ---- who is compared ------------------------------------------------------------------------------------------

    def untrained(self, name: str) -> Encoder:
        """The step-0 twin of a checkpoint; where its start is not recorded, a fresh network of the same shape."""
        model, record = self.session.model(name)
        if name not in self._twins or self._twins[name][0] is not model:
            with torch.random.fork_rng(devices=[]):
                try:
                    twin, words, note = step_zero(record), f"{name} at step 0", ""
                except ConfigError as problem:
                    torch.manual_seed(0)
                    twin, words = Mask3D(model.config).eval(), f"untrained network shaped as {name}"
                    note = f"Not its own start, but fresh weights from seed 0: {problem.problems[0]}."
            self._twins[name] = model, Encoder(RGBEncoder.of(twin, words), twin, words, note)
        return self._twins[name][1]

    def encoders(self) -> tuple[Encoder, Encoder]:
        """A, the session's checkpoint, and B, the one it is compared with: by default A's untrained twin.

        Raises:
            ConfigError: one of them has no RGB encoder, or their patches differ.
        """
        def made(name: str) -> Encoder:
            model = self.session.model(name)[0]
            return Encoder(RGBEncoder.of(model, name), model, name)

        state = self.session.state
        first = made(state.checkpoint)
        second = made(state.compare) if state.compare else self.untrained(state.checkpoint)
        if first.encoder.patch != second.encoder.patch:
            raise ConfigError(f"A has patches of {first.encoder.patch} pixels and B of {second.encoder.patch}; only encoders "
                              "with equal patches can be compared patch by patch")
        return first, second

    # ---- features -------------------------------------------------------------------------------------------------

    def gallery(self) -> tuple[int, ...]:
        """The frames in which neighbours are searched, evenly spread over the session's."""
        count = len(self.session.frames)
        return tuple(np.unique(np.linspace(0, count - 1, min(self.limit, count)).round().astype(int)).tolist())

    def _frame(self, number: int, size: tuple[int, int], grid: tuple[int, int]) -> tuple[np.ndarray, PatchTruth]:
        key = (number, size, grid)
        if key not in self._frames:
            batch = from_frames([self.session.frames[number]], size, [number])
            color = (batch.color[0].permute(1, 2, 0) * 255).round().byte().numpy()
            self._frames[key] = color, patch_truth(batch, grid)
        return self._frames[key]

    def _of(self, side: Encoder | None, layer: int, numbers: tuple[int, ...], size: tuple[int, int], patch: int,
            tick: Callable[[], None]) -> Tensor:
        """Float (f, n, d): an encoder's features, or the raw patches (``side`` None)."""
        key = ("pixels" if side is None else side.model, layer if side else 0, size, patch)
        known = self._features.setdefault(key, {})
        self._features.move_to_end(key)
        while len(self._features) > CACHED:
            self._features.popitem(last=False)
        for number in numbers:
            if number not in known:
                color = torch.from_numpy(self._frame(number, size, (size[0] // patch, size[1] // patch))[0])
                color = color.permute(2, 0, 1)[None].float() / 255
                known[number] = (raw_patches(color, patch) if side is None else patch_features(
                    side.encoder, color, max(layer, -side.encoder.depth)).patches)[0]
            tick()
        return torch.stack([known[number] for number in numbers])

    def look(self, progress: Callable[[int, int], None] | None = None) -> Look:
        """Everything about the session's frame at its layer.

        Args:
            progress: called with (done, total) steps.

        Raises:
            ConfigError: an encoder without RGB, or patches that differ.
        """
        with self.session.lock:
            state, encoders = self.session.state, self.encoders()
            config = encoders[0].model.config
        layer = min(-1, max(state.layer, -encoders[0].encoder.depth))
        gallery, size, grid, patch = self.gallery(), config.image_size, config.grid, config.patch
        frames = gallery if state.frame in gallery else (*gallery, state.frame)
        done, total = 0, 3 * len(frames)

        def tick() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        shown = [self._frame(number, size, grid) for number in frames]
        truth = PatchTruth(torch.cat([t.depth for _, t in shown]), torch.cat([t.normal for _, t in shown]),
                           None if any(t.label is None for _, t in shown) else torch.cat([t.label for _, t in shown]))
        features = {side: self._of(encoder, layer, frames, size, patch, tick)
                    for side, encoder in zip(SIDES, (*encoders, None))}
        # models are in the key themselves, not their numbers: they live as long as the cache names them
        key = (encoders[0].model, encoders[1].model, layer, gallery)
        if key not in self._bases:
            in_gallery = {side: f[:len(gallery)] for side, f in features.items()}
            colors = torch.from_numpy(np.stack([c for c, _ in shown[:len(gallery)]])).permute(0, 3, 1, 2).float() / 255
            self._bases[key] = _components(in_gallery, brightness_of(colors, grid)), _agreements(in_gallery, truth, grid)
            while len(self._bases) > CACHED:
                self._bases.popitem(last=False)
        components, agreements = self._bases[key]
        scores = {side: components[side].of(f) for side, f in features.items()}
        features = {side: f - components[side].mean.to(f.dtype) for side, f in features.items()}
        return Look((*key, state.frame), frames, state.frame, grid, layer, encoders, np.stack([c for c, _ in shown]),
                    features, scores, components, truth, agreements)

    # ---- the probe ------------------------------------------------------------------------------------------------

    def probe_frames(self, progress: Callable[[int, int], None] | None = None) -> ProbeFrames:
        """The session's frames where they suffice for three parts, else rendered rooms; ``words`` says which."""
        count, size = len(self.session.frames), self.session.model()[0].config.image_size
        reason = f"the session has {count} frames and a probe needs {ENOUGH}"
        if count >= ENOUGH:
            frames = [self.session.frames[n] for n in range(count)]
            batches = [from_frames([frame], size, [n]) for n, frame in enumerate(frames)]
            measured = sum(bool(b.is_valid.any()) for b in batches)
            try:
                if measured < ENOUGH:
                    raise ConfigError(f"only {measured} of the session's frames have measured depth")
                return ProbeFrames.of(lambda numbers: _joined([batches[n] for n in numbers]),
                                      [f.origin.sequence for f in frames], f"the session's {count} frames")
            except ConfigError as problem:
                reason = "; ".join(problem.problems)
        batches, split, sequences = rendered_rooms(tuple(size), progress)
        return ProbeFrames(lambda numbers: _joined([batches[n] for n in numbers]), split, sequences,
                           f"{len(batches)} rendered rooms ({reason}), furniture models and materials held out for testing")

    def probe(self, progress: Callable[[str, int, int], None] | None = None) -> ProbeResult:
        """A, B and the opponents probed for depth at the session's layer.

        Args:
            progress: called with (what is being done, done, total).
        """
        with self.session.lock:
            state, encoders = self.session.state, self.encoders()
            untrained = self.untrained(state.checkpoint)
        tell = lambda what: (lambda done, total: progress(what, done, total)) if progress else None  # noqa: E731
        frames = self.probe_frames(tell("rendering rooms"))
        at = lambda e: feature_function(e.encoder, max(state.layer, -e.encoder.depth))  # noqa: E731
        chosen = {e.words: at(e) for e in encoders if e.model is not untrained.model}
        return probe_depth(chosen, at(untrained), frames, encoders[0].encoder.patch, ProbeConfig(), tell("probing"))

    def probe_key(self) -> tuple:
        """Equal keys, equal probes."""
        first, second = self.encoders()
        return first.model, second.model, self.session.state.layer


def _joined(batches: list[Batch]) -> Batch:
    """Batches in a row; labels are left out, the probe of depth needs none."""
    cat = lambda name: torch.cat([getattr(b, name) for b in batches])  # noqa: E731
    return Batch(*(cat(n) for n in ("color", "depth", "is_valid", "intrinsics", "frame_ids", "epochs")))


def _components(features: dict[str, Tensor], brightness: Tensor) -> dict[str, Components]:
    flat = {side: f.flatten(0, 1) for side, f in features.items()}
    first = main_components(flat["a"], brightness)
    reference = first.of(flat["a"])
    turned = {side: aligned(main_components(flat[side], brightness), flat[side], reference) for side in ("b", "pixels")}
    return {"a": first, **turned}


def _agreements(features: dict[str, Tensor], truth: PatchTruth, grid: tuple[int, int], count: int = 5
                ) -> dict[str, dict[str, float]]:
    """Of patches spread over the gallery: how many of the nearest five agree with them, beside random patches."""
    frames, n = len(features["a"]), grid[0] * grid[1]
    if frames < 2:
        return {}
    pictures = torch.arange(frames).repeat_interleave(n)
    query = torch.linspace(0, frames * n - 1, min(QUERIES, frames * n)).round().long()
    found = {}
    for side, values in features.items():
        flat = values.flatten(0, 1)
        flat = flat - flat.mean(dim=0)
        _, nearest = nearest_patches(flat[query], flat, count, pictures[query], pictures)
        found[side] = {**agreement(truth, query, nearest), "place": same_place(query, nearest, grid)}
    drawn = random_neighbours(pictures[query], pictures, count)
    found["random"] = {**agreement(truth, query, drawn), "place": same_place(query, drawn, grid)}
    return found


_ROOMS: dict[tuple[int, int], list[tuple[Batch, int, str]]] = {}  # by size; filled by rendered_rooms


def rendered_rooms(size: tuple[int, int], progress: Callable[[int, int], None] | None = None
                   ) -> tuple[list[Batch], np.ndarray, tuple[str, ...]]:
    """Rooms for a probe: pool "train" to fit and to choose, pool "test" to test; rendered once per size.

    Returns:
        Batches of one frame, the split uint8 (n,), and each one's sequence.
    """
    from mask3d_core.sources import open_source

    made = _ROOMS.setdefault(size, [])
    options = {"seed": ROOMS_SEED, "views_per_room": 1, "height": size[0], "width": size[1]}
    source = {pool: open_source("rooms", count=count, pool=pool, **options) for pool, count in (
        ("train", ROOMS["train"] + ROOMS["val"]), ("test", ROOMS["test"]))}
    plan = [("train", k, TRAIN if k < ROOMS["train"] else VAL) for k in range(len(source["train"]))]
    plan += [("test", k, TEST) for k in range(len(source["test"]))]
    for number, (pool, place, part) in enumerate(plan):
        if number >= len(made):  # an interrupted call is taken up where it stopped
            frame = source[pool].read(place)
            made.append((from_frames([frame], size, [number]), part, f"{pool}/{frame.origin.sequence}"))
        if progress:
            progress(number + 1, len(plan))
    batches, split, sequences = zip(*made)
    return list(batches), np.array(split, np.uint8), tuple(sequences)


__all__ = ["Encoder", "FeatureAnalysis", "Look", "rendered_rooms"]
