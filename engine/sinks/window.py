"""A window on the screen."""

from __future__ import annotations

import re

import cv2

from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.sink import Item
from panrt.errors import SinkError


class WindowWriter:
    """Shows one window for each source. OpenCV requires all calls of a window from one thread, the sink's."""

    def __init__(self) -> None:
        if not has_windows():
            raise SinkError(
                f"window://: this OpenCV ({cv2.__version__}) is built without windows; install opencv-python "
                "instead of opencv-python-headless, or watch in a browser with web://:8080."
            )
        self._opened: set[str] = set()

    def write(self, item: Item) -> None:
        """Show one result, unless its window was closed."""
        title = f"panrt {item.frame.source}"
        if title in self._opened and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            return
        image = annotated(item)
        if title not in self._opened:
            self._opened.add(title)
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(title, image.shape[1], image.shape[0])
        cv2.imshow(title, image)
        cv2.waitKey(1)

    def close(self) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()


def has_windows() -> bool:
    """Return whether OpenCV can open a window."""
    return re.search(r"GUI:\s+NONE", cv2.getBuildInformation()) is None
