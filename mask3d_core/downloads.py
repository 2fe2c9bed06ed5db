"""Data sets whose licence allows a download without signing anything, and where to sign for the others."""

from __future__ import annotations

import importlib
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from mask3d_core.errors import Mask3DError
from mask3d_core.fetching import fetch, unpack_archive


@dataclass(frozen=True)
class Download:
    """One archive that may be downloaded without signing anything.

    Args:
        name: what people call it by.
        url: where it lies.
        licence: under which it is published.
        cite: whom to cite.
        prepare: what to do with it once it is unpacked; FOLDER stands for its folder.
        sha256: its checksum, or None where none is known.
    """

    name: str
    url: str
    licence: str
    cite: str
    prepare: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rsplit("/", 1)[1]


_TUM = {
    "1": "360 desk desk2 floor plant room rpy teddy xyz",
    "2": "360_hemisphere 360_kidnap coke desk desk_with_person dishes flowerbouquet flowerbouquet_brownbackground "
         "large_no_loop large_with_loop metallic_sphere metallic_sphere2 pioneer_360 pioneer_slam pioneer_slam2 pioneer_slam3 "
         "rpy xyz",
    "3": "cabinet large_cabinet long_office_household nostructure_notexture_far nostructure_notexture_near_withloop "
         "nostructure_texture_far nostructure_texture_near_withloop sitting_halfsphere sitting_rpy sitting_static sitting_xyz "
         "structure_notexture_far structure_notexture_near structure_texture_far structure_texture_near teddy "
         "walking_halfsphere walking_rpy walking_static walking_xyz"}
# The publishers give no checksums. These were measured on the official files by several people who do not know each other.
_KNOWN = {
    "tum-fr1-xyz": "a0236d97b8c30cd93b653656d2b6c293ff7c982a4130ef2a1a8beecdb124ef98",
    "tum-fr1-desk": "e983d6830916e66dc4a46a71368046b149b283de87769690e7aa4e0b9483530c",
    "icl-living-room-0": "4eca8c2e9f77c1bd7436c746d22ea6144b8c01fe9bc29a84e734186823f1f1ad"}


def _catalogue() -> dict[str, Download]:
    found = []
    for camera, sequences in _TUM.items():
        for sequence in sequences.split():
            name = f"tum-fr{camera}-{sequence.replace('_', '-')}"
            found.append(Download(
                name, f"https://cvg.cit.tum.de/rgbd/dataset/freiburg{camera}/rgbd_dataset_freiburg{camera}_{sequence}.tgz",
                "CC BY 4.0", "Sturm et al., IROS 2012", "mask3d prepare tum FOLDER --out STORE", _KNOWN.get(name)))
    for room, stem in (("living-room", "living_room_traj"), ("office", "traj")):
        for number in range(4):
            name = f"icl-{room}-{number}"
            found.append(Download(
                name, f"https://www.doc.ic.ac.uk/~ahanda/{stem}{number}_frei_png.tar.gz", "CC BY 3.0", "Handa et al., ICRA 2014",
                "mask3d prepare tum FOLDER --out STORE --option 'intrinsics=[481.2,480.0,319.5,239.5]'", _KNOWN.get(name)))
    return {entry.name: entry for entry in found}


CATALOGUE = _catalogue()


def how_to_get() -> list[str]:
    """How to get the sets that this command must not or cannot fetch: who publishes them and what has to be signed."""
    from mask3d_core.sources import SOURCES

    texts = []
    for place in SOURCES.values():
        text = getattr(importlib.import_module(place.partition(":")[0]), "HOW_TO_GET", None)
        texts += [text] if text else []
    return texts


def find(name: str) -> Download:
    """A set of the catalogue.

    Raises:
        Mask3DError: it is not in there; says which are, or how to get it otherwise.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    wanted = "".join(letter for letter in name.lower() if letter.isalnum())
    for text in how_to_get():
        title = text.partition(":")[0].removeprefix("How to get ")
        if wanted and "".join(letter for letter in title.lower() if letter.isalnum()).startswith(wanted):
            raise Mask3DError("a set that may be downloaded without signing", name, text, "download")
    near = [known for known in CATALOGUE if name.lower() in known]
    cure = f"Did you mean {', '.join(near[:6])}?" if near else "`mask3d download` without a name lists all."
    raise Mask3DError("a set of `mask3d download`", repr(name), cure, "download")


def download(entry: Download, out: str | os.PathLike, unpack: bool = True, progress: bool = True) -> Path:
    """Fetch an archive, check it, and unpack it. Interrupted at any moment, the same call goes on where it stopped.

    Args:
        entry: what.
        out: the folder for archives and unpacked folders.
        unpack: whether to unpack.
        progress: show a bar.

    Returns:
        The folder with the unpacked frames, or the archive.

    Raises:
        Mask3DError: no such file on the server, the connection broke (what came is kept), a checksum that does not fit, or an
            archive with files that belong elsewhere.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    archive = out / entry.file
    if unpack and (out / entry.name).is_dir() and not archive.is_file():
        return unpack_archive(archive, out / entry.name, progress)  # unpacked earlier, the archive thrown away since
    fetch(entry.url, archive, entry.sha256, progress)
    return unpack_archive(archive, out / entry.name, progress) if unpack else archive


def catalogue_text() -> str:
    """What can be downloaded, and how to get the rest."""
    lines = ["May be downloaded without signing anything (mask3d download NAME --out DIR):"]
    for licence in dict.fromkeys(entry.licence for entry in CATALOGUE.values()):
        entries = [entry for entry in CATALOGUE.values() if entry.licence == licence]
        names = ", ".join(entry.name + ("" if entry.sha256 else "*") for entry in entries)
        lines += ["", f"{licence}, cite {entries[0].cite}:", _wrapped(names)]
    lines += ["", "* no checksum is known beforehand: the first download's is printed, recorded and compared from then on"]
    return "\n".join([*lines, *("\n" + _wrapped(text, "") for text in how_to_get())])


def _wrapped(text: str, indent: str = "  ") -> str:
    """Lines of at most 110 characters; names, commands and addresses stay whole."""
    return textwrap.fill(text, 110, initial_indent=indent, subsequent_indent="  ", break_on_hyphens=False,
                         break_long_words=False)
