"""mask3d_viz: pure functions from tensors to pictures, clouds, charts and pages."""
