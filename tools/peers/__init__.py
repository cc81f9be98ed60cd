"""The same work done by other means: what PanRT's ops are measured against."""
