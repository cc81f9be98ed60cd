"""The files that PanRT reads and writes: models, engines, images, videos and JSON."""
