// Captures, and the graphs that they make.

#include <memory>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {

CUresult stream_begin_capture(CUstream handle, CUstreamCaptureMode mode) {
  ENTER("cuStreamBeginCapture", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamBeginCapture", &error);
  if (stream == nullptr) return error;
  if (is_default(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = this_thread();
  stream->tail.clear();
  driver().captures.push_back(stream->capture);
  return CUDA_SUCCESS;
}

CUresult stream_end_capture(CUstream handle, CUgraph* graph) {
  ENTER("cuStreamEndCapture", kContext | kRelease);  // whatever goes wrong, it has ended
  auto& d = driver();
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamEndCapture", &error);
  if (stream == nullptr) return error;
  *graph = nullptr;
  auto const capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != this_thread())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  bool joined = true;
  for (auto* other : d.streams.live())
    if (other->capture == capture && other != stream) {
      for (auto const node : other->tail) {  // joined where what it did last comes before what the origin did last
        std::vector<bool> reached(capture->graph->nodes.size());
        for (auto const last : stream->tail) reached[last] = true;
        for (std::size_t n = reached.size(); n-- > 0;)
          if (reached[n])
            for (auto const earlier : capture->graph->nodes[n].after) reached[earlier] = true;
        joined = joined && reached[node];
      }
      other->capture = nullptr;
      other->tail.clear();
    }
  stream->capture = nullptr;
  stream->tail.clear();
  for (auto found = d.captures.begin(); found != d.captures.end(); ++found)
    if (*found == capture) {
      d.captures.erase(found);
      break;
    }
  if (capture->spoilt) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!joined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  if (call.error != CUDA_SUCCESS) return call.error;
  *graph = reinterpret_cast<CUgraph>(d.graphs.add(std::move(capture->graph)));
  return CUDA_SUCCESS;
}

CUresult graph_release_user_object(CUgraph graph, CUuserObject handle, unsigned) {
  ENTER("cuGraphReleaseUserObject", kRelease);
  Kept gone;
  auto& kept = reinterpret_cast<Graph*>(graph)->kept;
  for (auto found = kept.begin(); found != kept.end(); ++found)
    if (found->first == reinterpret_cast<UserObject*>(handle)) {
      gone.push_back(*found);
      kept.erase(found);
      break;
    }
  call.lock.unlock();
  return call.error;
}

CUresult stream_is_capturing(CUstream handle, CUstreamCaptureStatus* status) {
  ENTER("cuStreamIsCapturing", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamIsCapturing", &error);
  if (stream == nullptr) return error;
  *status = !stream->capture          ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->spoilt ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                      : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

CUresult stream_get_capture_info(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                 CUgraphNode const** dependencies, CUgraphEdgeData const** edges, std::size_t* count) {
  CUresult const result = stream_is_capturing(handle, status);
  bool const captures = result == CUDA_SUCCESS && *status != CU_STREAM_CAPTURE_STATUS_NONE;
  auto const* const stream = captures ? reinterpret_cast<Stream*>(handle) : nullptr;
  if (id != nullptr) *id = captures ? reinterpret_cast<cuuint64_t>(stream->capture.get()) : 0;
  if (graph != nullptr) *graph = captures ? reinterpret_cast<CUgraph>(stream->capture->graph.get()) : nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return result;
}
// As cuda-bindings 12 calls it.
CUresult stream_get_capture_info_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                    CUgraphNode const** dependencies, std::size_t* count) {
  return stream_get_capture_info(handle, status, id, graph, dependencies, nullptr, count);
}

CUresult graph_create(CUgraph* graph, unsigned) {
  ENTER("cuGraphCreate", kNothing);
  *graph = reinterpret_cast<CUgraph>(driver().graphs.add(std::make_unique<Graph>()));
  return CUDA_SUCCESS;
}

CUresult graph_destroy(CUgraph handle) {
  ENTER("cuGraphDestroy", kRelease);
  if (!driver().graphs.has(handle))
    return call.misuse("cuGraphDestroy: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  driver().graphs.remove(reinterpret_cast<Graph*>(handle));
  Kept const kept = std::move(reinterpret_cast<Graph*>(handle)->kept);
  call.lock.unlock();  // what destroys a user's object may call the driver
  return call.error;
}

CUresult user_object_create(CUuserObject* out, void* object, CUhostFn destroy, unsigned count, unsigned) {
  ENTER("cuUserObjectCreate", kNothing);
  auto made = std::make_unique<UserObject>();
  made->object = std::shared_ptr<void>(object, destroy);
  made->count = count;
  *out = reinterpret_cast<CUuserObject>(driver().user_objects.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult user_object_release(CUuserObject handle, unsigned count) {
  ENTER("cuUserObjectRelease", kRelease);
  if (!driver().user_objects.has(handle)) return call.misuse("cuUserObjectRelease: no such", CUDA_ERROR_INVALID_VALUE);
  auto* const object = reinterpret_cast<UserObject*>(handle);
  std::shared_ptr<void> last;
  if (object->count <= count) {
    driver().user_objects.remove(object);
    last = std::move(object->object);
  }
  object->count -= count;
  call.lock.unlock();
  return call.error;
}

CUresult graph_retain_user_object(CUgraph graph, CUuserObject handle, unsigned count, unsigned flags) {
  ENTER("cuGraphRetainUserObject", kNothing);
  auto* const object = reinterpret_cast<UserObject*>(handle);
  reinterpret_cast<Graph*>(graph)->kept.emplace_back(object, object->object);
  if ((flags & CU_GRAPH_USER_OBJECT_MOVE) == 0) return CUDA_SUCCESS;
  call.lock.unlock();
  return user_object_release(handle, count);
}

CUresult graph_get_nodes(CUgraph handle, CUgraphNode*, std::size_t* count) {
  ENTER("cuGraphGetNodes", kNothing);
  if (!driver().graphs.has(handle)) return CUDA_ERROR_INVALID_VALUE;
  *count = reinterpret_cast<Graph*>(handle)->nodes.size();
  return CUDA_SUCCESS;
}

CUresult graph_instantiate_with_flags(CUgraphExec* exec, CUgraph handle, unsigned long long) {
  ENTER("cuGraphInstantiate", kContext);
  if (!driver().graphs.has(handle))
    return call.misuse("cuGraphInstantiate: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  auto made = std::make_unique<Exec>();
  made->nodes = reinterpret_cast<Graph*>(handle)->nodes;
  made->kept = reinterpret_cast<Graph*>(handle)->kept;
  *exec = reinterpret_cast<CUgraphExec>(driver().execs.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult graph_instantiate_with_params(CUgraphExec* exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  CUresult const result = graph_instantiate_with_flags(exec, graph, parameters->flags);
  parameters->result_out = result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
  return result;
}

CUresult graph_exec_destroy(CUgraphExec handle) {
  ENTER("cuGraphExecDestroy", kRelease);
  if (!driver().execs.has(handle))
    return call.misuse("cuGraphExecDestroy: it does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  driver().execs.remove(reinterpret_cast<Exec*>(handle));
  Kept const kept = std::move(reinterpret_cast<Exec*>(handle)->kept);
  call.lock.unlock();
  return call.error;
}

CUresult graph_upload(CUgraphExec handle, CUstream) {
  ENTER("cuGraphUpload", kContext);
  return driver().execs.has(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Nodes run in the order of their capture, which is one that their edges allow.
CUresult graph_launch(CUgraphExec handle, CUstream stream_handle) {
  ENTER("cuGraphLaunch", kContext);
  CUresult error = CUDA_SUCCESS;
  if (!driver().execs.has(handle))
    return call.misuse("cuGraphLaunch: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  auto* const stream = stream_of(call, stream_handle, "cuGraphLaunch", &error);
  if (stream == nullptr) return error;
  auto* const exec = reinterpret_cast<Exec*>(handle);
  auto const previous = exec->last;
  auto const work = [exec] {
    for (auto const& node : exec->nodes)
      if (CUresult const result = node.work ? node.work() : CUDA_SUCCESS; result != CUDA_SUCCESS) return result;
    return CUDA_SUCCESS;
  };
  if (!is_done(previous) && !stream->capture && driver().schedule == SIMCUDA_EAGER) run(call.lock, previous);
  CUresult const result = enqueue(call, stream, "graph", work, &exec->last);
  if (exec->last && exec->last->progress == Progress::kPending && !is_done(previous))
    exec->last->after.push_back(previous);
  return result;
}

}  // namespace simcuda
