"""Downloads from a server on this machine: resume, checksums, broken connections, what a person is told; and unpacking."""

import hashlib
import http.server
import io
import shlex
import tarfile
import threading

import numpy as np
import pytest

from mask3d_core import cli
from mask3d_core.cli.options import options_of
from mask3d_core.downloads import CATALOGUE, Download, catalogue_text, download, find
from mask3d_core.errors import Mask3DError
from mask3d_core.fetching import fetch, unpack_archive
from mask3d_core.sources import open_source
from mask3d_core.sources.tum import TumSequence
from test_tum import write_sequence

pytest.importorskip("pooch", reason="pooch downloads")
CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content`` as HTTP asks; ``server.faults`` are used up one per request."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
        content, fault = server.content, server.faults.pop(0) if server.faults else ""
        if self.path != "/file.tgz" or fault in ("404", "503"):
            return self.send_error(int(fault or 404))
        start, asked = 0, self.headers.get("Range", "")
        fresh = self.headers.get("If-Range", "") in ("", server.tag)
        if asked and fresh and fault != "no ranges":
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if fault == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.tag:
            self.send_header("ETag", server.tag)
        if fault == "called an encoding":
            self.send_header("Content-Encoding", "x-gzip")
        if fault != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.breaks_after if fault == "break" else len(content)
        self.wfile.write(content[start:end])  # HTTP/1.0: the connection closes here


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.content, found.tag, found.faults, found.asked, found.breaks_after = CONTENT, '"one"', [], [], 1_200_000
    found.url = f"http://127.0.0.1:{found.server_address[1]}/file.tgz"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def quiet(url, path, sha=None):
    return fetch(url, path, sha, progress=False)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checked_download_and_its_second_call(server, tmp_path, capsys):
    path = tmp_path / "file.tgz"
    assert quiet(server.url, path, SHA) == SHA and path.read_bytes() == CONTENT
    assert left(tmp_path) == ["file.tgz", "file.tgz.sha256"] and SHA in (tmp_path / "file.tgz.sha256").read_text()
    assert quiet(server.url, path, SHA) == SHA and len(server.asked) == 1
    assert capsys.readouterr().out == ""


def test_an_unknown_checksum_is_printed_recorded_and_compared_from_then_on(server, tmp_path, capsys):
    path = tmp_path / "file.tgz"
    assert quiet(server.url, path) == SHA
    assert f"no checksum is published; its sha256 is {SHA}, recorded in file.tgz.sha256" in capsys.readouterr().out
    assert quiet(server.url, path) == SHA and len(server.asked) == 1 and capsys.readouterr().out == ""
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(Mask3DError, match=f"file.tgz: expected sha256 {SHA}.*changed since.*Delete it and file.tgz.sha256"):
        quiet(server.url, path)
    path.unlink()
    server.content, server.tag = b"other" + CONTENT, '"two"'
    with pytest.raises(Mask3DError, match=f"expected sha256 {SHA}.*does not match.*publisher has changed"):
        quiet(server.url, path)
    assert not path.exists()
    (tmp_path / "file.tgz.sha256").write_text("nonsense")
    with pytest.raises(Mask3DError, match="64 digits; got 'nonsense'"):
        quiet(server.url, path)


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    path, server.faults = tmp_path / "file.tgz", ["break", "break"]
    for kept in (server.breaks_after, 2 * server.breaks_after):
        with pytest.raises(Mask3DError, match=f"connection that lasts.*{kept:,} bytes are kept in file.tgz.part; run the same"):
            quiet(server.url, path, SHA)
        assert not path.exists() and left(tmp_path) == ["file.tgz.part", "file.tgz.part.note"]
    assert quiet(server.url, path, SHA) == SHA and path.read_bytes() == CONTENT
    assert [request.get("range") for request in server.asked] == [None, "bytes=1200000-", "bytes=2400000-"]
    assert server.asked[1]["if-range"] == '"one"' and left(tmp_path) == ["file.tgz", "file.tgz.sha256"]


def test_a_file_that_changed_meanwhile_comes_whole_again(server, tmp_path):
    path, server.faults = tmp_path / "file.tgz", ["break"]
    with pytest.raises(Mask3DError):
        quiet(server.url, path)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert quiet(server.url, path) == hashlib.sha256(CONTENT[::-1]).hexdigest() and path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("faults, tag", [(["break", "no ranges"], '"one"'), (["break", ""], ""), (["break", ""], 'W/"weak"')])
def test_where_a_server_cannot_go_on_it_begins_again(server, tmp_path, faults, tag):
    path, server.faults, server.tag = tmp_path / "file.tgz", list(faults), tag
    with pytest.raises(Mask3DError, match="run the same command again"):
        quiet(server.url, path)
    assert quiet(server.url, path) == SHA and path.read_bytes() == CONTENT
    assert ("range" in server.asked[1]) == (tag == '"one"')


def test_all_bytes_were_there_but_not_the_end_of_the_work(server, tmp_path):
    """Killed between the last byte and the move: the server has nothing to send (416), the file is whole."""
    (tmp_path / "file.tgz.part").write_bytes(CONTENT)
    (tmp_path / "file.tgz.part.note").write_text(f'{server.url}\n"one"\n')
    assert quiet(server.url, tmp_path / "file.tgz", SHA) == SHA and len(server.asked) == 1
    (tmp_path / "file.tgz").unlink()
    (tmp_path / "file.tgz.part").write_bytes(CONTENT + b"too much")
    (tmp_path / "file.tgz.part.note").write_text(f'{server.url}\n"one"\n')
    assert quiet(server.url, tmp_path / "file.tgz", SHA) == SHA and (tmp_path / "file.tgz").read_bytes() == CONTENT


def test_bytes_of_another_address_are_not_mixed_in(server, tmp_path):
    (tmp_path / "file.tgz.part").write_bytes(b"of something else")
    (tmp_path / "file.tgz.part.note").write_text('http://127.0.0.1:1/other.tgz\n"one"\n')
    assert quiet(server.url, tmp_path / "file.tgz", SHA) == SHA and "range" not in server.asked[0]


def test_damaged_bytes_so_far_are_found_by_the_checksum(server, tmp_path):
    (tmp_path / "file.tgz.part").write_bytes(b"\0" * 1000)
    (tmp_path / "file.tgz.part.note").write_text(f'{server.url}\n"one"\n')
    with pytest.raises(Mask3DError, match="does not match"):
        quiet(server.url, tmp_path / "file.tgz", SHA)
    assert not (tmp_path / "file.tgz.part").exists() and not (tmp_path / "file.tgz").exists()
    assert quiet(server.url, tmp_path / "file.tgz", SHA) == SHA


def test_an_archive_that_a_server_calls_an_encoding_arrives_as_it_is(server, tmp_path):
    """Some servers send .tgz files as "Content-Encoding: x-gzip", which HTTP libraries undo: another file, another checksum."""
    import gzip

    server.content, server.faults = gzip.compress(b"inside" * 1000), ["called an encoding"]
    quiet(server.url, tmp_path / "file.tgz")
    assert (tmp_path / "file.tgz").read_bytes() == server.content


def test_without_a_length_the_end_of_the_connection_is_the_end(server, tmp_path):
    server.faults = ["no length"]
    assert quiet(server.url, tmp_path / "file.tgz") == SHA


@pytest.mark.parametrize("fault, message", [("404", "the answer 404 Not Found. The publisher may have moved it"),
                                            ("503", "the answer 503 .*Try again later")])
def test_what_the_server_refuses_is_said(server, tmp_path, fault, message):
    server.faults = [fault]
    with pytest.raises(Mask3DError, match=f"{server.url}: expected a file at this address; got {message}"):
        quiet(server.url, tmp_path / "file.tgz")
    assert left(tmp_path) == []


def test_a_server_that_sends_another_part_is_not_believed(server, tmp_path):
    server.faults = ["break", "wrong range"]
    for message in ("bytes are kept", "where byte 1200000 was asked for.*1,200,000 bytes are kept"):
        with pytest.raises(Mask3DError, match=message):
            quiet(server.url, tmp_path / "file.tgz")
    assert quiet(server.url, tmp_path / "file.tgz", SHA) == SHA


def test_nobody_there(tmp_path):
    with pytest.raises(Mask3DError, match="connection that lasts; got ConnectionError.*Check the connection"):
        quiet("http://127.0.0.1:1/file.tgz", tmp_path / "file.tgz")


def test_without_pooch_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(Mask3DError, match="pip install pooch"):
        quiet("http://127.0.0.1:1/file.tgz", tmp_path / "file.tgz")


def packed(folder, top="rgbd_dataset_freiburg1_tiny"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, top)
    return buffer.getvalue()


def test_the_command_fetches_unpacks_and_says_what_comes_next(server, tmp_path, monkeypatch, capsys):
    server.content, server.faults = packed(write_sequence(tmp_path / "recording")), ["break"]
    server.breaks_after = len(server.content) // 2
    entry = Download("tum-fr1-tiny", server.url, "CC BY 4.0", "Sturm et al., IROS 2012", "mask3d prepare tum FOLDER --out STORE",
                     hashlib.sha256(server.content).hexdigest())
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    out = tmp_path / "sets"
    assert cli.main(["download", "tum-fr1-tiny", "--out", str(out)]) == 2
    assert "run the same command again" in capsys.readouterr().err
    assert cli.main(["download", "tum-fr1-tiny", "--out", str(out)]) == 0
    place = out / "tum-fr1-tiny/rgbd_dataset_freiburg1_tiny"
    printed = capsys.readouterr().out
    assert "CC BY 4.0, cite Sturm" in printed and f"next: mask3d prepare tum {place} --out STORE" in printed
    source = TumSequence(place)
    assert len(source) == 5 and source.intrinsics.fx == 517.3 and server.asked[1]["range"].startswith("bytes=")
    (out / "file.tgz").unlink()
    assert download(entry, out, progress=False) == place and len(server.asked) == 2  # unpacked already


def test_the_list_says_licences_and_where_to_sign(capsys):
    assert cli.main(["download"]) == 0
    text = capsys.readouterr().out
    assert text.strip() == catalogue_text() and len(CATALOGUE) == 55
    assert "CC BY 4.0, cite Sturm" in text and "CC BY 3.0, cite Handa" in text
    words = text.split()
    assert "tum-fr1-rpy*," in words and "tum-fr1-xyz," in words  # a checksum is known of the second only
    assert max(map(len, text.splitlines())) <= 110
    for name in ("SUN RGB-D", "Cityscapes", "ScanNet", "NYUv2"):
        assert f"How to get {name}" in text
    for entry in CATALOGUE.values():
        assert entry.url.startswith("https://") and entry.file.endswith(("tgz", ".tar.gz")) and "CC BY" in entry.licence
        assert entry.sha256 is None or len(entry.sha256) == 64
    assert len({entry.url for entry in CATALOGUE.values()}) == len(CATALOGUE)


def test_the_command_that_is_proposed_next_reads_the_recording(tmp_path):
    """ICL-NUIM's camera is not the Kinect's that the source would assume."""
    words = shlex.split(CATALOGUE["icl-office-2"].prepare.replace("FOLDER", str(write_sequence(tmp_path / "icl"))))
    assert words[:3] == ["mask3d", "prepare", "tum"]
    source = open_source(words[2], words[3], **options_of(tuple(words[words.index("--option") + 1:])))
    assert source.read(0).intrinsics.as_array() == pytest.approx([481.2, 480.0, 319.5, 239.5])


@pytest.mark.parametrize("name, message", [
    ("cityscapes", "without signing; got cityscapes. How to get Cityscapes.*registering"), ("sun-rgbd", "How to get SUN"),
    ("ScanNet", "How to get ScanNet"), ("fr1-desk", "Did you mean tum-fr1-desk, tum-fr1-desk2?"),
    ("imagenet", "without a name lists all")])
def test_sets_that_must_be_signed_for_are_not_fetched(name, message):
    with pytest.raises(Mask3DError, match=message):
        find(name)


def archive_of(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, 3 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
            tar.addfile(info, io.BytesIO(b"abc"))
    return path


@pytest.mark.parametrize("name, kind", [
    ("../out.txt", tarfile.REGTYPE), ("/out.txt", tarfile.REGTYPE), ("a/../../out.txt", tarfile.REGTYPE),
    ("a\\..\\out.txt", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("link", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)])
def test_an_archive_that_reaches_outside_is_refused_whole(tmp_path, name, kind):
    archive = archive_of(tmp_path / "a.tgz", ("good.txt", tarfile.REGTYPE), (name, kind))
    with pytest.raises(Mask3DError, match="a.tgz: expected an archive of plain files and folders"):
        unpack_archive(archive, tmp_path / "in" / "a", progress=False)
    assert left(tmp_path) == ["a.tgz", "in"] and left(tmp_path / "in") == []


def test_unpacking_again_after_a_kill_and_a_cut_archive(tmp_path):
    archive = archive_of(tmp_path / "a.tgz", ("top", tarfile.DIRTYPE), ("./top/x.txt", tarfile.REGTYPE),
                         ("top/d/y.txt", tarfile.REGTYPE))
    (tmp_path / ".a.unpacking/top").mkdir(parents=True)
    (tmp_path / ".a.unpacking/half").write_text("left by a kill")
    assert unpack_archive(archive, tmp_path / "a", progress=False) == tmp_path / "a/top"
    assert left(tmp_path / "a") == ["top"] and (tmp_path / "a/top/d/y.txt").read_text() == "abc"
    assert unpack_archive(archive, tmp_path / "a", progress=False) == tmp_path / "a/top"
    content = archive.read_bytes()
    for wrong in (content[:len(content) // 2], b"not a tar", b"", content[:40] + b"\0" * 9 + content[49:]):
        archive.write_bytes(wrong)
        with pytest.raises(Mask3DError, match="a.tgz: expected a readable archive"):
            unpack_archive(archive, tmp_path / "b", progress=False)
    assert left(tmp_path) == ["a", "a.tgz"]
