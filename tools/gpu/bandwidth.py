"""Memory bandwidth of copies, timed by the GPU."""

from __future__ import annotations

from cuda.bindings import driver as cu

from tools.gpu.device import Buffer, Event, Stream, call

COPIES = 5  # of which the fastest counts


def bandwidth(size: int) -> dict[str, float]:
    """Return GB/s of copies of `size` bytes from and to pinned memory, and on the device, whose bytes count twice."""
    stream = Stream()
    host = call(cu.cuMemHostAlloc, size, 0)
    one, other = Buffer(size, canary=0), Buffer(size, canary=0)
    copies = {
        "upload": (cu.cuMemcpyHtoDAsync, one.address, host, 1),
        "download": (cu.cuMemcpyDtoHAsync, host, one.address, 1),
        "device": (cu.cuMemcpyDtoDAsync, other.address, one.address, 2),
    }
    rates = {}
    before, after = Event(), Event()
    for name, (copy, target, source, times) in copies.items():
        seconds = []
        for _ in range(COPIES):
            before.record(stream)
            call(copy, target, source, size, stream.handle)
            after.record(stream)
            seconds.append(after.seconds_since(before))
        rates[name] = round(times * size / max(min(seconds), 1e-9) / 1e9, 2)
    one.close()
    other.close()
    call(cu.cuMemFreeHost, host)
    stream.close()
    return rates
