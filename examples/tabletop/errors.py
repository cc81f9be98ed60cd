"""Exceptions of this package, importable on a machine that cannot draw."""

from panrt.errors import PanrtError


class RenderingError(PanrtError, ImportError):
    """MuJoCo or OpenGL is missing, so that this machine cannot draw."""
