"""The two front-end pieces that everything live is made of: a picture with its patches, and a point cloud."""
