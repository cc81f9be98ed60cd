// Streams and events.

#include <memory>
#include <string>
#include <utility>

#include "driver.h"

namespace simcuda {

CUresult stream_create_with_priority(CUstream* stream, unsigned flags, int priority) {
  ENTER("cuStreamCreate", kContext);
  auto made = std::make_unique<Stream>();
  made->context = current_context();
  made->flags = flags;
  made->priority = priority;
  *stream = reinterpret_cast<CUstream>(driver().streams.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult stream_create(CUstream* stream, unsigned flags) { return stream_create_with_priority(stream, flags, 0); }

CUresult stream_destroy(CUstream handle) {
  ENTER("cuStreamDestroy", kRelease);
  auto& d = driver();
  if (!d.streams.has(handle))
    return call.misuse("cuStreamDestroy: the stream does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  auto* const stream = reinterpret_cast<Stream*>(handle);
  if (!is_done(stream->last)) d.orphans.emplace_back(stream->context, stream->last);
  if (stream->capture) {
    spoil(*stream->capture);
    for (auto found = d.captures.begin(); found != d.captures.end(); ++found)
      if (*found == stream->capture && (*found)->origin == stream) {
        d.captures.erase(found);
        break;
      }
  }
  d.streams.remove(stream);
  return call.error;
}

CUresult stream_synchronize(CUstream handle) {
  ENTER("cuStreamSynchronize", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamSynchronize", &error);
  if (stream == nullptr) return error;
  if (stream->capture) {
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (stream->last) run(call.lock, OpRef(stream->last));
  return driver().sticky;
}

CUresult stream_query(CUstream handle) {
  ENTER("cuStreamQuery", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamQuery", &error);
  if (stream == nullptr) return error;
  if (is_done(stream->last)) return driver().sticky;
  step(call.lock, stream->last);
  return driver().sticky != CUDA_SUCCESS ? driver().sticky : CUDA_ERROR_NOT_READY;
}

CUresult stream_get_flags(CUstream handle, unsigned* flags) {
  ENTER("cuStreamGetFlags", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetFlags", &error);
  if (stream == nullptr) return error;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CUresult stream_get_priority(CUstream handle, int* priority) {
  ENTER("cuStreamGetPriority", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetPriority", &error);
  if (stream == nullptr) return error;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult stream_get_context(CUstream handle, CUcontext* context) {
  ENTER("cuStreamGetCtx", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetCtx", &error);
  if (stream == nullptr) return error;
  *context = reinterpret_cast<CUcontext>(stream->context);
  return CUDA_SUCCESS;
}

CUresult stream_get_context_v2(CUstream handle, CUcontext* context, CUgreenCtx* green) {
  if (green != nullptr) *green = nullptr;
  return stream_get_context(handle, context);
}

CUresult event_create(CUevent* event, unsigned flags) {
  ENTER("cuEventCreate", kContext);
  auto made = std::make_unique<Event>();
  made->context = current_context();
  made->flags = flags;
  *event = reinterpret_cast<CUevent>(driver().events.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult event_destroy(CUevent handle) {
  ENTER("cuEventDestroy", kRelease);
  if (!driver().events.has(handle))
    return call.misuse("cuEventDestroy: the event does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  driver().events.remove(reinterpret_cast<Event*>(handle));
  return call.error;
}

namespace {

Event* event_of(Call& call, CUevent handle, char const* name, CUresult* error) {
  if (driver().events.has(handle)) return reinterpret_cast<Event*>(handle);
  *error = call.misuse(std::string(name) + ": the event does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  return nullptr;
}

}  // namespace

CUresult event_record(CUevent event_handle, CUstream stream_handle) {
  ENTER("cuEventRecord", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, event_handle, "cuEventRecord", &error);
  auto* const stream = event ? stream_of(call, stream_handle, "cuEventRecord", &error) : nullptr;
  if (stream == nullptr) return error;
  if (stream->context != event->context)
    return call.misuse("cuEventRecord: event and stream are of different contexts", CUDA_ERROR_INVALID_HANDLE);
  event->capture = stream->capture;
  event->tail = stream->tail;
  if (stream->capture) return stream->capture->spoilt ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  return enqueue(call, stream, "event", nullptr, &event->recorded);
}

CUresult event_record_with_flags(CUevent event, CUstream stream, unsigned flags) {
  if (flags != CU_EVENT_RECORD_DEFAULT) return CUDA_ERROR_NOT_SUPPORTED;
  return event_record(event, stream);
}

CUresult event_synchronize(CUevent handle) {
  ENTER("cuEventSynchronize", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, handle, "cuEventSynchronize", &error);
  if (event == nullptr) return error;
  if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  if (event->recorded) run(call.lock, OpRef(event->recorded));
  return driver().sticky;
}

CUresult event_query(CUevent handle) {
  ENTER("cuEventQuery", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, handle, "cuEventQuery", &error);
  if (event == nullptr) return error;
  if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  if (is_done(event->recorded)) return driver().sticky;
  step(call.lock, event->recorded);
  return driver().sticky != CUDA_SUCCESS ? driver().sticky : CUDA_ERROR_NOT_READY;
}

CUresult event_elapsed_time(float* milliseconds, CUevent from_handle, CUevent to_handle) {
  ENTER("cuEventElapsedTime", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const from = event_of(call, from_handle, "cuEventElapsedTime", &error);
  auto* const to = from ? event_of(call, to_handle, "cuEventElapsedTime", &error) : nullptr;
  if (to == nullptr) return error;
  if (((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING) != 0 || !from->recorded || !to->recorded)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!is_done(from->recorded) || !is_done(to->recorded)) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(1e3 * (to->recorded->done_at - from->recorded->done_at));
  return CUDA_SUCCESS;
}

CUresult stream_wait_event(CUstream stream_handle, CUevent event_handle, unsigned) {
  ENTER("cuStreamWaitEvent", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, event_handle, "cuStreamWaitEvent", &error);
  auto* const stream = event ? stream_of(call, stream_handle, "cuStreamWaitEvent", &error) : nullptr;
  if (stream == nullptr) return error;
  if (event->capture) {  // the stream joins the capture
    if (stream->capture && stream->capture != event->capture) {
      spoil(*stream->capture);
      spoil(*event->capture);
      return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    stream->capture = event->capture;
    stream->tail.insert(stream->tail.end(), event->tail.begin(), event->tail.end());
    return CUDA_SUCCESS;
  }
  if (stream->capture) {
    if (!event->recorded) return CUDA_SUCCESS;
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (is_done(event->recorded)) return CUDA_SUCCESS;
  OpRef op;
  OpRef const awaited = event->recorded;
  CUresult const result = enqueue(call, stream, "wait", nullptr, &op);
  if (op->progress == Progress::kPending) op->after.push_back(awaited);
  return result;
}

}  // namespace simcuda
