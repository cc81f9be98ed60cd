// A V4L2 camera, /dev/video40, for a process that preloads this library: what a driver does on open and ioctl.
//
//   V4L2_FORMAT    the one format that it gives: YUYV, NV12 or MJPG
//   V4L2_FRAMES    frames that it gives; every byte of the frame n is n, counted from 1, or they are the file V4L2_JPEG
//   V4L2_THEN      what comes then: "gone" (it is unplugged), "silent"
//   V4L2_DAMAGED   number of a frame that comes in part
//   V4L2_OPEN      number of an error that opening it gives
//
// Its buffers lie in a file in memory called panrt-camera, so that /proc/self/maps tells where they are. A frame is
// stamped 5 ms before it comes. See support/v4l2.py.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST_BUFFERS 32
#define JPEG_BYTES (1 << 16)

static struct {
  int fd, flags;
  unsigned width, height, fps, size, count, frames;
  int queue[MOST_BUFFERS], queued;
  struct timespec due;
  unsigned char* memory;
} camera = {.fd = -1, .width = 64, .height = 48, .fps = 200};

static char const* setting(char const* name, char const* otherwise) {
  char const* value = getenv(name);
  return value != NULL ? value : otherwise;
}

static unsigned format(void) {
  char const* name = setting("V4L2_FORMAT", "YUYV");
  return v4l2_fourcc(name[0], name[1], name[2], name[3]);
}

static unsigned buffer_bytes(void) { return (camera.size + 4095) / 4096 * 4096; }

static int fail(int error) {
  errno = error;
  return -1;
}

static int open_device(int flags) {
  int error = atoi(setting("V4L2_OPEN", "0"));
  if (error != 0) return fail(error);
  if (camera.fd >= 0) return fail(EBUSY);
  camera.fd = memfd_create("panrt-camera", MFD_CLOEXEC);
  camera.flags = flags;
  camera.frames = 0;
  camera.queued = 0;
  return camera.fd;
}

static void describe(struct v4l2_pix_format* pixels) {
  unsigned area = camera.width * camera.height;
  camera.size = format() == V4L2_PIX_FMT_MJPEG ? JPEG_BYTES : format() == V4L2_PIX_FMT_NV12 ? area * 3 / 2 : area * 2;
  pixels->width = camera.width;
  pixels->height = camera.height;
  pixels->pixelformat = format();
  pixels->field = V4L2_FIELD_NONE;
  pixels->sizeimage = camera.size;
}

static unsigned fill(unsigned char* target) {
  if (format() != V4L2_PIX_FMT_MJPEG) {
    memset(target, (int)camera.frames, camera.size);
    return camera.size;
  }
  FILE* file = fopen(setting("V4L2_JPEG", ""), "rb");
  unsigned count = file != NULL ? (unsigned)fread(target, 1, JPEG_BYTES, file) : 0;
  if (file != NULL) fclose(file);
  return count;
}

static int dequeue(struct v4l2_buffer* buffer) {
  struct timespec now;
  if (camera.frames >= (unsigned)atoi(setting("V4L2_FRAMES", "3"))) {
    if (strcmp(setting("V4L2_THEN", "gone"), "gone") == 0) return fail(ENODEV);
    return fail(camera.flags & O_NONBLOCK ? EAGAIN : EIO);  // EIO: a reader that waits would wait for ever
  }
  clock_gettime(CLOCK_MONOTONIC, &now);
  int early = now.tv_sec < camera.due.tv_sec || (now.tv_sec == camera.due.tv_sec && now.tv_nsec < camera.due.tv_nsec);
  if (camera.queued == 0 || (early && camera.flags & O_NONBLOCK)) return fail(EAGAIN);
  if (early) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &camera.due, NULL);
  clock_gettime(CLOCK_MONOTONIC, &now);
  long next = now.tv_nsec + 1000000000L / camera.fps, taken = now.tv_nsec - 5000000L;
  camera.due = (struct timespec){now.tv_sec + next / 1000000000L, next % 1000000000L};
  camera.frames++;
  buffer->index = (unsigned)camera.queue[0];
  memmove(camera.queue, camera.queue + 1, sizeof camera.queue[0] * (size_t)--camera.queued);
  buffer->bytesused = fill(camera.memory + buffer->index * buffer_bytes());
  buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
  buffer->timestamp = (struct timeval){now.tv_sec - (taken < 0), (taken < 0 ? taken + 1000000000L : taken) / 1000};
  buffer->sequence = camera.frames - 1;
  if (camera.frames == (unsigned)atoi(setting("V4L2_DAMAGED", "0"))) {
    buffer->bytesused /= 2;
    buffer->flags |= V4L2_BUF_FLAG_ERROR;
  }
  return 0;
}

static int control(unsigned long request, void* argument) {
  switch (request) {
    case VIDIOC_QUERYCAP: {
      struct v4l2_capability* found = argument;
      memset(found, 0, sizeof *found);
      strcpy((char*)found->card, "test camera");
      found->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
      return 0;
    }
    case VIDIOC_G_INPUT:
      *(int*)argument = 0;
      return 0;
    case VIDIOC_S_INPUT:
      return 0;
    case VIDIOC_ENUMINPUT: {
      struct v4l2_input* input = argument;
      if (input->index != 0) return fail(EINVAL);
      memset(input, 0, sizeof *input);
      input->type = V4L2_INPUT_TYPE_CAMERA;
      return 0;
    }
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT: {
      struct v4l2_pix_format* pixels = &((struct v4l2_format*)argument)->fmt.pix;
      if (pixels->width != 0) camera.width = pixels->width;
      if (pixels->height != 0) camera.height = pixels->height;
      describe(pixels);  // a driver puts its own format in place of one that it has not
      return 0;
    }
    case VIDIOC_G_FMT:
      describe(&((struct v4l2_format*)argument)->fmt.pix);
      return 0;
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM: {
      struct v4l2_captureparm* capture = &((struct v4l2_streamparm*)argument)->parm.capture;
      if (request == VIDIOC_S_PARM && capture->timeperframe.numerator != 0)
        camera.fps = capture->timeperframe.denominator / capture->timeperframe.numerator;
      capture->capability = V4L2_CAP_TIMEPERFRAME;
      capture->timeperframe = (struct v4l2_fract){1, camera.fps};
      return 0;
    }
    case VIDIOC_REQBUFS: {
      struct v4l2_requestbuffers* wanted = argument;
      camera.count = wanted->count = wanted->count < MOST_BUFFERS ? wanted->count : MOST_BUFFERS;
      size_t bytes = (size_t)camera.count * buffer_bytes();
      if (ftruncate(camera.fd, (off_t)bytes) != 0) return -1;
      camera.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, camera.fd, 0);
      return camera.memory == MAP_FAILED ? -1 : 0;
    }
    case VIDIOC_QUERYBUF: {
      struct v4l2_buffer* buffer = argument;
      buffer->length = camera.size;
      buffer->m.offset = buffer->index * buffer_bytes();
      return 0;
    }
    case VIDIOC_QBUF:
      camera.queue[camera.queued++] = (int)((struct v4l2_buffer*)argument)->index;
      return 0;
    case VIDIOC_DQBUF:
      return dequeue(argument);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
      return 0;
    default:
      return fail(ENOTTY);
  }
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (fd == camera.fd && fd >= 0) return control(request & 0xffffffffUL, argument);
  int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
  return next(fd, request, argument);
}

int close(int fd) {
  int (*next)(int) = dlsym(RTLD_NEXT, "close");
  if (fd == camera.fd) camera.fd = -1;
  return next(fd);
}

static int open_any(char const* path, int flags, mode_t mode, char const* function) {
  if (strcmp(path, "/dev/video40") == 0) return open_device(flags);
  int (*next)(char const*, int, ...) = dlsym(RTLD_NEXT, function);
  return next(path, flags, mode);
}

#define OPEN(NAME)                             \
  int NAME(const char* path, int flags, ...) { \
    va_list arguments;                         \
    va_start(arguments, flags);                \
    mode_t mode = va_arg(arguments, mode_t);   \
    va_end(arguments);                         \
    return open_any(path, flags, mode, #NAME); \
  }
OPEN(open)
OPEN(open64)
