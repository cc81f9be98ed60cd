"""An RTSP server on 127.0.0.1 for tests. Run by the system's Python, whose `gi` is a Debian package (see SETUP).

    /usr/bin/python3 rtsp_server.py PORT DESCRIPTION [USER PASSWORD]

DESCRIPTION is a GStreamer pipeline that ends in an RTP payloader named pay0; it is served at /clip. Prints "ready".
"""

import sys

SETUP = (
    "apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-plugins-ugly python3-gi"
)


def serve(port: str, description: str, *login: str) -> None:
    """Serve until killed."""
    import gi  # noqa: PLC0415  (this file is also imported where it is not installed)

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # noqa: PLC0415

    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {description} )")
    factory.set_shared(True)
    if login:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        server.set_auth(auth)
        rights = ", ".join(f"media.factory.{right}=(boolean)true" for right in ("access", "construct"))
        factory.add_role_from_structure(Gst.Structure.new_from_string(f"user, {rights}"))
    server.get_mount_points().add_factory("/clip", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
