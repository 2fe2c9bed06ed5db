"""The rooms of a study as stores: rendered once, reused by every run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from mask3d_core.errors import Mask3DError
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source
from mask3d_core.sources.opening import open_path
from mask3d_core.sources.rooms import Rooms
from mask3d_core.store import Store
from mask3d_core.study.config import RoomsData, StudyConfig, fingerprint
from mask3d_core.training.config import pretrain_config

SPARE = 16  # pixels by which stored frames are larger than the training size, so that crops can move


def study_stores(config: StudyConfig, folder: Path, show: bool = True) -> dict[str, Path]:
    """Render what is not there yet.

    Args:
        folder: where stores go; studies with the same rooms share them.

    Returns:
        "train", "val" and "test" to a store's folder; of real frames also "real".

    Raises:
        Mask3DError: the real frames are not there.
    """
    size = pretrain_config(config.preset).model.image_size
    real = opened_folds(config) if config.folder else None  # refused before anything is rendered
    made = store_paths(config, folder)
    for part, source in room_sources(config).items():
        prepare(source, made[part], PrepareConfig(size[0] + SPARE, size[1] + SPARE, split=part), progress=show)
        Store(made[part])
    if real is not None:
        made["real"] = Path(folder) / f"real-{fingerprint({**real.describe(), 'size': size})}"
        prepare(real, made["real"], PrepareConfig(size[0] + SPARE, size[1] + SPARE, split="train"), progress=show)
    return made


def store_paths(config: StudyConfig, folder: Path) -> dict[str, Path]:
    """Where the stores lie, or would: nothing is rendered or read. The real frames' place holds no description of them."""
    made = {part: Path(folder) / f"rooms-{part}-{of}" for part, of in described(config).items() if part != "real"}
    return {**made, "real": Path(folder) / "real"} if config.folder else made


def described(config: StudyConfig) -> dict[str, str]:
    """What identifies the making of each store, whatever a processor makes of it; real frames by folder name and size alone."""
    found = {part: fingerprint({**source.config.describe(), "count": source.count}) for part, source in room_sources(config).items()}
    if config.folder:
        found["real"] = fingerprint({"folder": Path(config.folder).name, "size": pretrain_config(config.preset).model.image_size})
    return found


def room_sources(config: StudyConfig) -> dict[str, Rooms]:
    """The rooms of each part."""
    size = pretrain_config(config.preset).model.image_size
    return {part: rooms_of(config.rooms, part, number, size) for number, part in enumerate(("train", "val", "test"))}


def opened_folds(config: StudyConfig) -> Source:
    """The real frames of a study, every fold of which is there.

    Raises:
        Mask3DError: no such folder, or a fold that no sequence fits.
    """
    source = open_path(config.folder)
    names = sorted({source.sequence(i) for i in range(len(source))})
    absent = [fold for fold in config.folds if not any(fnmatchcase(name, fold) for name in names)]
    if absent:
        raise Mask3DError("frames of every fold", f"none of {', '.join(absent)}; its sequences are {', '.join(names[:4])}, ...",
                          "Correct folds, or the folder.", config.folder)
    return source


def rooms_of(rooms: RoomsData, part: str, number: int, size: tuple[int, int]) -> Rooms:
    """The source of one part."""
    views = rooms.train_views if part == "train" else rooms.held_out_views
    return Rooms(count=getattr(rooms, f"{part}_rooms") * views, seed=rooms.seed + number, height=size[0] + SPARE,
                 width=size[1] + SPARE, views_per_room=views, sensor=rooms.sensor, plain=rooms.plain, desk=rooms.desk,
                 pool="test" if part == "test" else "train")
