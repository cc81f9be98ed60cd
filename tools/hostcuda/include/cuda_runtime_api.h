// Stands in for the CUDA toolkit's header of this name when kernels are compiled for the CPU.
#pragma once

#include "hostcuda.h"
