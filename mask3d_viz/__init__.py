"""mask3d_viz: pure functions from tensors to pictures, clouds, charts and pages.

Nothing is shown, nothing is global: every function takes arrays and returns a picture (uint8 (H, W, 3)), a
matplotlib ``Figure`` or a string of HTML. matplotlib and Pillow load with the first picture, not with the import.
"""
