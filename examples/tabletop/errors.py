"""What a caller of this package may handle, importable where nothing can be drawn."""

from panrt.errors import PanrtError


class RenderingError(PanrtError, ImportError):
    """Nothing can be drawn here: MuJoCo or an OpenGL is missing."""
