"""MuJoCo with OpenGL that needs no screen. Every module of this package takes `mujoco` from here.

MuJoCo chooses its OpenGL from the variable MUJOCO_GL while it is imported. On Linux the default here is EGL, which Mesa
implements in software without a GPU; MUJOCO_GL=osmesa works too and gives the same images.
"""

import os
import sys

from examples.tabletop.errors import RenderingError

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

_ADVICE = (
    "Drawing the tabletop needs MuJoCo (pip install 'mujoco>=4', Python 3.11 or newer) and a working OpenGL; "
    "on Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
)


try:
    import mujoco
except (ImportError, AttributeError) as error:  # PyOpenGL raises AttributeError if libEGL is missing
    raise RenderingError(
        f"MuJoCo with MUJOCO_GL={os.environ.get('MUJOCO_GL')} cannot be imported: {error}. {_ADVICE}"
    ) from error

if int(mujoco.__version__.split(".", maxsplit=1)[0]) < 4:  # geoms without a shadow came with 4.0
    raise RenderingError(f"MuJoCo {mujoco.__version__} is too old, expected 4.0 or newer. {_ADVICE}")

__all__ = ["create_context", "mujoco"]


def create_context(height: int, width: int) -> mujoco.GLContext:
    """Return an OpenGL context, current in this thread; release it with its `free`.

    Raises:
        RenderingError: there is no OpenGL driver; the message names the packages that provide one.
    """
    try:
        context = mujoco.GLContext(width, height)
    except ImportError as error:
        raise RenderingError(f"no OpenGL with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {error} {_ADVICE}") from error
    context.make_current()
    return context
