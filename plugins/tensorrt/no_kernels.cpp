// Launchers of a library that was built without nvcc. Engines can be built with it; running one reports the missing
// kernels.
#include "panrt/cuda/box_detections.h"
#include "panrt/cuda/panoptic_merge.h"
#include "panrt/cuda/prepare.h"
#include "panrt/cuda/pyramid_roi_align.h"
#include "panrt/cuda/rpn_proposals.h"

namespace panrt::cuda {
namespace {

constexpr Status kNoKernels = unsupported(
    "this plugin library was built without CUDA kernels; build it where nvcc is found (panrt plugins build) and the "
    "engine with that library");

}  // namespace

std::size_t rpn_proposals_workspace_bytes(RpnProposalsArgs const&) noexcept { return 0; }
std::size_t box_detections_workspace_bytes(BoxDetectionsArgs const&) noexcept { return 0; }
std::size_t panoptic_merge_workspace_bytes(PanopticMergeArgs const&) noexcept { return 0; }

char const* host_arithmetic_fault() noexcept { return nullptr; }

Status prepare_rpn_proposals() noexcept { return {}; }
Status prepare_pyramid_roi_align() noexcept { return {}; }
Status prepare_box_detections() noexcept { return {}; }
Status prepare_panoptic_merge() noexcept { return {}; }

Status check_rpn_proposals(RpnProposalsArgs const&) noexcept { return {}; }
Status check_box_detections(BoxDetectionsArgs const&) noexcept { return {}; }
Status check_panoptic_merge(PanopticMergeArgs const&) noexcept { return {}; }
Status check_pyramid_roi_align(PyramidRoiAlignArgs const&) noexcept { return {}; }

Status launch_rpn_proposals(RpnProposalsArgs const&, cudaStream_t) noexcept { return kNoKernels; }
Status launch_pyramid_roi_align(PyramidRoiAlignArgs const&, cudaStream_t) noexcept { return kNoKernels; }
Status launch_box_detections(BoxDetectionsArgs const&, cudaStream_t) noexcept { return kNoKernels; }
Status launch_panoptic_merge(PanopticMergeArgs const&, cudaStream_t) noexcept { return kNoKernels; }

}  // namespace panrt::cuda
