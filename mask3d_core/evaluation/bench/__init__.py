"""A bench for any plain vision transformer: how much of the third dimension a frozen encoder holds, on fixed rooms, on a CPU.

:func:`bench_encoders` measures depth, surface normals and semantics read off by a matrix and by nearest patches, and matches
patches across views without any training, beside opponents that know nothing.
"""

from mask3d_core.evaluation.bench.config import BenchConfig
from mask3d_core.evaluation.bench.entries import untrained_twin
from mask3d_core.evaluation.bench.frames import BenchFrames, store_frames
from mask3d_core.evaluation.bench.result import BenchResult
from mask3d_core.evaluation.bench.rooms import VERSION, RoomsBench, rooms_frames
from mask3d_core.evaluation.bench.run import bench_encoders, bench_entries

__all__ = ["VERSION", "BenchConfig", "BenchFrames", "BenchResult", "RoomsBench", "bench_encoders", "bench_entries",
           "rooms_frames", "store_frames", "untrained_twin"]
