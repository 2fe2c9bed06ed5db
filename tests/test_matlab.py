"""Our reader of MATLAB's version 5 beside SciPy's writer and reader, and against damage, to which SciPy's gives way."""

import io
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask3d_core.errors import FrameError
from mask3d_core.sources.matlab import mat_version, open_hdf5, read_mat
from test_fuzz_readers import DAMAGE, ROUNDS, damaged

scipy_io = pytest.importorskip("scipy.io", reason="SciPy writes the files that our reader has to read")


def cell(*values):
    row = np.empty((1, len(values)), object)
    row[0, :] = values
    return row


def structures():
    found = np.zeros((1, 3), [("name", object), ("box", object), ("inner", object)])
    for i in range(3):
        found[0, i] = (f"frame {i}", np.arange(i + 2.0), {"deep": cell("x", np.eye(2)), "n": i})
    return found


VALUES = {"double": np.arange(12.0).reshape(3, 4) - 2.5, "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
          "column": np.arange(5)[:, None], "single": 7.5, "negative": np.int16([[-3, 4]]), "big": np.array([2**60, 3]),
          "yes": np.array([True, False]), "text": "floor mat", "umlaut": "Tür", "rows": np.array(["abc", "de "]),
          "nothing": np.zeros((0, 0)), "cells": cell("wall", "", 5, "night stand"), "frames": structures(),
          "one": {"train": cell("a", "b"), "val": cell("c")}}


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def path(request, tmp_path):
    scipy_io.savemat(tmp_path / "v.mat", VALUES, do_compression=request.param)
    return tmp_path / "v.mat"


def test_numbers_texts_cells_and_structures(path):
    found = read_mat(path, list(VALUES))
    for name in ("double", "bytes", "column", "single", "negative", "big", "yes"):
        assert np.array_equal(found[name], np.squeeze(VALUES[name])), name
        assert found[name].dtype.kind == np.asarray(VALUES[name]).dtype.kind or name == "yes"
    assert found["text"] == "floor mat" and found["umlaut"] == "Tür" and found["rows"] == ["abc", "de"]
    assert not found["nothing"].size
    assert list(found["cells"][[0, 1, 3]]) == ["wall", "", "night stand"] and found["cells"][2] == 5
    assert [frame.name for frame in found["frames"]] == ["frame 0", "frame 1", "frame 2"]
    assert np.array_equal(found["frames"][2].box, np.arange(4.0)) and np.array_equal(found["frames"][1].inner.deep[1], np.eye(2))
    assert list(found["one"].train) == ["a", "b"] and list(found["one"].val) == ["c"]


def test_the_same_as_scipys_reader(path):
    other = scipy_io.loadmat(path, squeeze_me=True, struct_as_record=False)
    for name in ("double", "bytes", "column", "single", "negative", "big", "yes"):
        assert np.array_equal(read_mat(path, [name])[name], other[name]), name


def test_only_the_wanted_fields_are_read(path):
    frame = read_mat(path, ["frames"], ["name"])["frames"][1]
    assert vars(frame) == {"name": "frame 1"}


def test_the_other_byte_order(tmp_path):
    """As a big-endian machine would have written it, element by element from the format's description."""
    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    def variable(kind, size, name, values):
        return element(14, element(6, struct.pack(">II", kind, 0)) + element(5, struct.pack(">ii", *size)) + name + values)

    packed = struct.pack(">I", 2 << 16 | 1) + b"mm\0\0"  # up to four bytes lie in the tag itself, behind size and type
    matrix = variable(6, (2, 2), packed, element(4, struct.pack(">4H", 1, 2, 3, 400)))
    text = variable(4, (1, 2), element(1, b"t"), element(4, "ab".encode("utf-16-be")))
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + matrix + text)
    found = read_mat(tmp_path / "b.mat", ["mm", "t"])
    assert found["mm"].tolist() == [[1, 3], [2, 400]] and found["t"] == "ab"
    assert scipy_io.loadmat(tmp_path / "b.mat")["mm"].tolist() == [[1, 3], [2, 400]]


def test_what_is_not_there_or_not_of_this_kind(path, tmp_path):
    with pytest.raises(FrameError, match="v.mat: expected the variables single, missing; got no missing"):
        read_mat(path, ["single", "missing"])
    with pytest.raises(FrameError, match="No such file"):
        read_mat(tmp_path / "none.mat", ["a"])
    with pytest.raises(FrameError, match="version 7.3.*got version 5"):
        open_hdf5(path)
    for content in (b"", b"MATLAB 4", b"\0" * 600):
        (tmp_path / "x.mat").write_bytes(content)
        with pytest.raises(FrameError, match="damaged or something else"):
            mat_version(tmp_path / "x.mat")
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 ".ljust(126) + b"??")
    with pytest.raises(FrameError, match="byte order"):
        read_mat(tmp_path / "x.mat", ["a"])


def test_version_7_3_says_so(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="h5py writes the file")
    with h5py.File(tmp_path / "h.mat", "w", userblock_size=512) as file:
        file["a"] = [1, 2]
    assert mat_version(tmp_path / "h.mat") == "7.3"
    with open_hdf5(tmp_path / "h.mat") as file:
        assert file["a"][:].tolist() == [1, 2]
    with pytest.raises(FrameError, match="version 5; got version 7.3"):
        read_mat(tmp_path / "h.mat", ["a"])
    (tmp_path / "h.mat").write_bytes((tmp_path / "h.mat").read_bytes()[:700])
    with pytest.raises(FrameError, match="readable HDF5 file"):
        open_hdf5(tmp_path / "h.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FrameError, match="pip install h5py"):
        open_hdf5(tmp_path / "h.mat")


NAMES = ["cells", "frames", "bytes", "text", "one"]


def encoded(compressed):
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {name: VALUES[name] for name in NAMES}, do_compression=compressed)
    return buffer.getvalue()


FILES = {True: encoded(True), False: encoded(False)}


@settings(ROUNDS, max_examples=400)
@given(damage=DAMAGE, compressed=st.booleans())
def test_damage_is_an_error_or_a_value_and_never_silence_behind_a_checksum(tmp_path, damage, compressed):
    content = damaged(FILES[compressed], damage)
    (tmp_path / "d.mat").write_bytes(content)
    try:
        found = read_mat(tmp_path / "d.mat", NAMES)
    except FrameError as error:
        assert "d.mat: expected" in str(error)
        return
    if compressed:  # the header's text and what follows the last variable carry no checksum; the variables do
        assert np.array_equal(found["bytes"], VALUES["bytes"]) and found["text"] == "floor mat"
        assert [frame.name for frame in found["frames"]] == ["frame 0", "frame 1", "frame 2"]


@pytest.mark.parametrize("numbers", [(2**31 - 1, 2**31 - 1), (-1, 5), (0, 0), (1, 2**30)])
def test_absurd_sizes_take_no_memory(tmp_path, numbers):
    content = bytearray(FILES[False])
    at = content.index(struct.pack("<ii", 1, 4))  # the dimensions of the four cells
    content[at:at + 8] = struct.pack("<ii", *numbers)
    (tmp_path / "d.mat").write_bytes(bytes(content))
    if numbers == (0, 0):
        assert not len(read_mat(tmp_path / "d.mat", ["cells"])["cells"])
        return
    with pytest.raises(FrameError, match="readable MATLAB file"):
        read_mat(tmp_path / "d.mat", ["cells"])
