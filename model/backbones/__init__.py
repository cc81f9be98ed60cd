"""Trunks: image -> C2..C5 at strides 4, 8, 16, 32."""
