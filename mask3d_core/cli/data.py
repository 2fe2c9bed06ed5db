"""Commands about frames: prepare, doctor, download."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from mask3d_core.cli.options import Positional, open_named, options_of
from mask3d_core.prepare import PrepareConfig


@dataclass(frozen=True)
class Prepare:
    """Write frames once into a memory-mapped store. Killed at any moment, the same command goes on where it stopped."""

    source: Positional[Literal["rooms", "tum", "folder", "scannet", "nyuv2", "sunrgbd", "cityscapes", "auto"]]
    """Where frames come from; "auto" looks at the folder."""
    path: Positional[str] = ""
    """The recording's folder; not for rooms."""
    out: Path = Path("stores/new")
    """The store's folder."""
    config: tyro.conf.OmitArgPrefixes[PrepareConfig] = field(default_factory=PrepareConfig)
    option: tuple[str, ...] = ()
    """Options of the source as key=value, e.g. count=2000 seed=1 pool=test sensor=0.3 (rooms), config=my.json (folder),
    every=25 split=train (scannet), classes=40 (nyuv2), depth=filled (nyuv2, sunrgbd), splits='["train", "val"]' (cityscapes)."""

    def run(self) -> int:
        """Prepare; print where the store is."""
        from mask3d_core.prepare import prepare
        from mask3d_core.sources.images import unmapped_words

        source = open_named(self.source, self.path, options_of(self.option))
        for note in source.describe().get("notes", ()):
            print(f"note: {note}")
        store = prepare(source, self.out, self.config)
        header = store.header
        print(f"{self.out}: {header.count} frames of {header.height}x{header.width} from {header.sequences} sequence(s); "
              f"{header.split_rule}")
        print(f"measured pixels {header.valid_share:.1%}; left out as unreadable: {len(header.bad_frames)}")
        ask = getattr(source, "unmapped_labels", None)
        unmapped = unmapped_words(*ask()) if ask else ""
        if unmapped:
            print(unmapped)
        return 0


@dataclass(frozen=True)
class Doctor:
    """Say in words what is wrong with a recording or a store, and with this machine."""

    path: Positional[str] = ""
    """A recording's folder or a store; empty: only this machine."""
    sample: int = 64
    """Frames to look at, spread evenly."""
    json: Path | None = None
    """Write the findings here too."""

    def run(self) -> int:
        """0 if nothing is an error, else 1."""
        from mask3d_core.doctor import Report, environment, examine

        reports = [Report("this machine", tuple(environment()))]
        if self.path:
            reports.append(examine(self.path, self.sample))
        print("\n\n".join(report.text() for report in reports))
        if self.json:
            self.json.write_text(reports[-1].to_json())
        return 1 if reports[-1].severity == "error" else 0


@dataclass(frozen=True)
class Download:
    """Fetch a data set whose licence allows it, checked and resumable; without a name, list all and say how to get the others."""

    name: Positional[str] = ""
    """Such as tum-fr1-desk; empty: the list."""
    out: Path = Path("downloads")
    """Folder for archives and unpacked recordings."""
    unpack: bool = True
    """Unpack after checking."""

    def run(self) -> int:
        """Print the list, or fetch and say what to do next."""
        from mask3d_core.downloads import catalogue_text, download, find

        if not self.name:
            print(catalogue_text())
            return 0
        entry = find(self.name)
        print(f"{entry.name}: {entry.licence}, cite {entry.cite}\n{entry.url}")
        place = download(entry, self.out, self.unpack)
        print(f"ready: {place}" + ("\nnext: " + entry.prepare.replace("FOLDER", str(place)) if self.unpack else ""))
        return 0
