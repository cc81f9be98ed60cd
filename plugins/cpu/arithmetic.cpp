#include "panrt/arithmetic.h"

#include "kernels.h"

namespace panrt {

char const* arithmetic_fault() { return fault_text(host_arithmetic_faults()); }

}  // namespace panrt
