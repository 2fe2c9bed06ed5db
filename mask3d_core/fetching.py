"""Fetching one file and unpacking it: whole or not at all, and after an interruption from where it stopped.

pooch names, checks and moves the files; what it lacks is here: a transfer that goes on. No checksum is made up: where none is
known, the file's own is printed, written beside it (``.sha256``) and compared from then on.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from mask3d_core.errors import Mask3DError
from mask3d_core.files import write_atomically
from mask3d_core.progress import Bar

_CHUNK = 1 << 20
_TIMEOUT = (20, 60)  # seconds to connect, and without a byte


def fetch(url: str, path: Path, sha256: str | None = None, progress: bool = True) -> str:
    """Download one file, or check the one that is there.

    Args:
        url: where it lies.
        path: where it goes; beside it a ``.part`` while it comes, and a ``.sha256`` afterwards.
        sha256: the checksum it must have; None: the one recorded beside it at the first download, if there is one.
        progress: show a bar.

    Returns:
        Its checksum.

    Raises:
        Mask3DError: no such file on the server, the connection broke (what came is kept), or a checksum that does not fit.
    """
    try:
        import pooch
    except ImportError as error:
        raise Mask3DError("pooch to download", str(error), "pip install pooch, or fetch the file yourself", url) from error
    record = path.with_name(path.name + ".sha256")
    known = sha256 or _recorded(record)
    pooch.get_logger().setLevel("WARNING")
    if path.is_file():
        found = pooch.file_hash(str(path))
        if known and found != known:
            raise Mask3DError(f"sha256 {known}", f"{found} (the file changed since it was downloaded, or is another one)",
                              f"Delete it{'' if sha256 else f' and {record.name}'} and run the same command again.", path)
    else:
        transfer = _Transfer(path.with_name(path.name + ".part"), progress)
        try:
            pooch.retrieve(url, known and f"sha256:{known}", fname=path.name, path=path.parent, downloader=transfer)
        except Mask3DError:
            raise
        except OSError as error:
            if error.errno is not None and not hasattr(error, "request"):  # of the disk, not of the connection
                raise
            raise transfer.broken(url, error) from error
        except ValueError as error:
            raise Mask3DError(f"sha256 {known}", f"{error}".rstrip("."),
                              "Run the same command again; if it happens twice, the publisher has changed the file: fetch it "
                              "yourself and compare.", url) from error
        transfer.note.unlink(missing_ok=True)
        found = known or pooch.file_hash(str(path))
    if not known:
        print(f"{path.name}: no checksum is published; its sha256 is {found}, recorded in {record.name} for next time")
    if _recorded(record) != found:
        write_atomically(record, f"{found}  {path.name}\n".encode())
    return found


def _recorded(record: Path) -> str | None:
    """The checksum in a .sha256 file, or None where there is none."""
    if not record.is_file():
        return None
    word = (record.read_text("utf-8", errors="replace").split() or [""])[0].lower()
    if len(word) != 64 or set(word) - set("0123456789abcdef"):
        raise Mask3DError("a sha256 of 64 digits", repr(word[:80]), "Delete the file to have it written again.", record)
    return word


class _Transfer:
    """pooch's downloader that goes on where an earlier one stopped.

    The bytes so far lie in a ``.part`` file, what they belong to (address, the server's ETag or date) in ``.part.note``.
    The rest is asked for with Range and If-Range, so that a file that has changed meanwhile comes whole again.

    Args:
        part: the file that grows.
        progress: show a bar.
    """

    def __init__(self, part: Path, progress: bool):
        self.part, self.note, self.progress = part, part.with_name(part.name + ".note"), progress

    def _stamp(self, url: str) -> str | None:
        """The server's mark of the file that the bytes so far belong to; None where they cannot be used."""
        if not self.part.is_file() or not self.note.is_file():
            return None
        lines = self.note.read_text("utf-8", errors="replace").split("\n")
        return lines[1] if len(lines) > 1 and lines[0] == url and lines[1] else None

    def __call__(self, url: str, output_file, pooch, check_only: bool = False) -> None:
        """Download to ``output_file`` (pooch gives a temporary name beside the final one)."""
        import requests

        stamp = self._stamp(url)
        start = self.part.stat().st_size if stamp else 0
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-", "If-Range": stamp} if start else {})}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == 416 and start:
                if not answer.headers.get("Content-Range", "").endswith(f"/{start}"):
                    self.part.unlink()  # more than there is: begin again
                    return self(url, output_file, pooch)
                total = start  # all of it came before, only the end of the work did not
            else:
                answer.raise_for_status()
                place = answer.headers.get("Content-Range", "")
                if answer.status_code == 206 and not place.startswith(f"bytes {start}-"):
                    raise OSError(f"the server sent {place!r} where byte {start} was asked for")
                total = self._take(url, answer, start if answer.status_code == 206 else 0)
        size = self.part.stat().st_size
        if total is not None and size != total:
            raise OSError(f"{size:,} of {total:,} bytes came")
        os.replace(self.part, output_file)
        return None

    def _take(self, url: str, answer, start: int) -> int | None:
        """Write what comes, from byte ``start`` on; returns the size that the whole should have, where the server says it."""
        import urllib3

        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - start > free:
            raise Mask3DError(f"{(total - start) / 1e9:.2f} GB of free disk", f"{free / 1e9:.2f} GB",
                              "Free some room or choose another --out.", self.part.parent)
        if not start:
            self.part.unlink(missing_ok=True)  # before the note speaks of other bytes
            stamp = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            write_atomically(self.note, f"{url}\n{'' if stamp.startswith('W/') else stamp}\n".encode())  # a weak tag is no proof
        done, words = start, self.part.name.removesuffix(".part")
        with (open(self.part, "ab" if start else "wb") as file,
              Bar(words, (total or 0) // _CHUNK, start // _CHUNK, "MiB", self.progress) as bar):
            try:
                for chunk in answer.raw.stream(_CHUNK, decode_content=False):  # some servers call an archive an encoding
                    file.write(chunk)
                    done += len(chunk)
                    bar.advance(done // _CHUNK - bar.done)
            except urllib3.exceptions.HTTPError as error:
                raise OSError(str(error)) from error
            finally:
                file.flush()
                os.fsync(file.fileno())
        return total

    def broken(self, url: str, error: OSError) -> Mask3DError:
        """What a person needs to know of a transfer that failed."""
        answer = getattr(error, "response", None)
        if answer is not None:
            cure = ("The publisher may have moved it; look at the data set's page." if answer.status_code in (403, 404, 410)
                    else "Try again later.")
            return Mask3DError("a file at this address", f"the answer {answer.status_code} {answer.reason}", cure, url)
        kept = self.part.stat().st_size if self._stamp(url) else 0
        cure = (f"{kept:,} bytes are kept in {self.part.name}; run the same command again to go on." if kept
                else "Check the connection and run the same command again.")
        return Mask3DError("a connection that lasts", f"{type(error).__name__}: {error}", cure, url)


def unpack_archive(archive: Path, folder: Path, progress: bool = True) -> Path:
    """Unpack a tar archive, whole or not at all.

    Args:
        archive: .tgz or .tar.gz.
        folder: where to; if it is there already, nothing is done.
        progress: show a bar.

    Returns:
        The folder that holds the frames: ``folder``, or the only folder in it.

    Raises:
        Mask3DError: damaged, or with files that would land outside of ``folder``, links or devices.
    """
    if not folder.is_dir():
        temporary = folder.with_name(f".{folder.name}.unpacking")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with tarfile.open(archive) as tar, Bar(f"unpacking {archive.name}", 0, unit="file", show=progress) as bar:
                for member in tar:
                    _extract(tar, member, temporary, archive)
                    bar.set(bar.done + 1, bar.done + 1)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, Mask3DError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise Mask3DError("a readable archive", f"{type(error).__name__}: {error}",
                              "Delete it and run the same command again.", archive) from error
        os.replace(temporary, folder)
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """One file or folder of an archive; permissions, owners and links are not taken over."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if not (member.isfile() or member.isdir()) or ".." in parts or member.name.startswith("/") or "\\" in member.name:
        raise Mask3DError("an archive of plain files and folders", repr(member.name),
                          "Such a file could overwrite others; do not use this archive.", archive)
    target = folder.joinpath(*parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(member) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
