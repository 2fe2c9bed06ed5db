"""mask3d_core: masked RGB-D pre-training (Mask3D, CVPR 2023) on a GPU or, small, on a CPU.

The way of a frame: source -> RGBDFrame -> store -> batch -> mask -> model -> loss -> engine -> checkpoint -> evaluation.
"""

__version__ = "0.1.0"
