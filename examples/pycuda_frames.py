"""PanRT in a program that works with PyCUDA: it reads the program's frames, and the program its maps, on the GPU.

    python examples/pycuda_frames.py street.plan clip.mp4 out/

Writes each frame with everything dark that is not a thing. Needs panrt[cuda,pycuda], an engine of `panrt build`, and
nvcc, with which PyCUDA compiles the kernel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pycuda.autoinit  # noqa: F401  # makes a CUDA context current, which `panrt.load` joins
import pycuda.driver as cuda
from pycuda import gpuarray
from pycuda.compiler import SourceModule

import panrt

KERNEL = """
// A thread darkens a pixel of the frame (BGR) whose segment is not a thing. The map may be smaller than the frame.
__global__ void keep_things(unsigned char* frame, int height, int width, int const* map, int map_height, int map_width,
                            int map_pitch, unsigned char const* is_thing) {
  int const x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  int const id = map[y * map_height / height * map_pitch + x * map_width / width];
  for (int c = 0; c < 3 && !is_thing[id]; ++c) frame[3 * (y * width + x) + c] /= 4;
}
"""


def main(engine: str, video: str, folder: str) -> None:
    """Run the engine on a video, and write an image of each frame."""
    keep_things = SourceModule(KERNEL).get_function("keep_things")
    stream = cuda.Stream()
    capture = cv2.VideoCapture(video)
    height, width = (int(capture.get(size)) for size in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    on_host = cuda.pagelocked_empty((height, width, 3), np.uint8)
    frame = gpuarray.empty(on_host.shape, np.uint8)
    Path(folder).mkdir(exist_ok=True)
    with panrt.load(engine) as session:
        most_ids = session.model.thresholds.max_detections + len(session.model.stuff)
        things = cuda.pagelocked_zeros(most_ids + 1, np.uint8)  # by segment id, 0 is void
        is_thing = gpuarray.empty(things.shape, np.uint8)
        number = 0
        while capture.read(on_host)[0]:
            frame.set_async(on_host, stream)
            session.wait_for(stream.handle)  # PanRT reads the frame after the upload, without a copy
            result = session(frame)
            things[:] = 0
            things[[segment.id for segment in result.segments if segment.is_thing]] = 1
            is_thing.set_async(things, stream)
            panoptic = result.panoptic_device  # in PanRT's own memory, until the next frame
            keep_things(
                frame, np.int32(height), np.int32(width),
                np.uintp(panoptic.address), *map(np.int32, (*panoptic.shape, panoptic.strides[0] // 4)), is_thing,
                block=(32, 8, 1), grid=(-(-width // 32), -(-height // 8)), stream=stream,
            )  # fmt: skip
            session.wait_for(stream.handle)  # PanRT writes its next map after the kernel
            frame.get_async(stream, on_host)
            stream.synchronize()
            cv2.imwrite(f"{folder}/{number:06}.png", on_host)
            number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
