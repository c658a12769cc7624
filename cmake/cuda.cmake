# Whether and for which GPUs CUDA kernels are compiled, and where TensorRT's headers are. Sets
# M2F_HAS_CUDA, M2F_CUDA_ARCHITECTURES and M2F_TENSORRT_INCLUDE (empty without TensorRT).
#
# AUTO asks for a GPU on this machine and compiles for it alone: somebody who installs m2f where
# there is none should not wait for kernels of all GPUs. ON compiles for all of them.

set(M2F_CUDA "AUTO" CACHE STRING
  "CUDA kernels: ON, OFF, or AUTO (where there are nvcc and a GPU)")
set(M2F_TENSORRT "AUTO" CACHE STRING
  "TensorRT plugins: ON, OFF, or AUTO (where there are CUDA kernels and TensorRT's headers)")
set(M2F_HAS_CUDA OFF)
set(M2F_TENSORRT_INCLUDE "")

set(wants_cuda ${M2F_CUDA})
if(M2F_CUDA STREQUAL "AUTO")
  # A graphics card, or a Jetson's own GPU.
  file(GLOB gpus /dev/nvidia[0-9]* /dev/nvhost-gpu /dev/nvgpu)
  set(wants_cuda ${gpus})
  if(M2F_TENSORRT STREQUAL "ON")
    set(wants_cuda ON)
  endif()
endif()
if(NOT wants_cuda)
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(M2F_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(M2F_NVCC)
    set(CMAKE_CUDA_COMPILER ${M2F_NVCC})
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(M2F_CUDA STREQUAL "ON" OR M2F_TENSORRT STREQUAL "ON")
    message(FATAL_ERROR "m2f: no CUDA compiler found; install the CUDA toolkit (12.4 or newer) "
      "or set -DCMAKE_CUDA_COMPILER=/path/to/nvcc")
  endif()
  message(STATUS "m2f: this machine has a GPU but no nvcc, so the CUDA kernels and TensorRT "
    "plugins are left out. Install the CUDA toolkit and install m2f again to get them.")
  return()
endif()

set(M2F_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES})
enable_language(CUDA)
set(M2F_HAS_CUDA ON)
if(NOT M2F_CUDA_ARCHITECTURES AND gpus)
  set(M2F_CUDA_ARCHITECTURES native)
elseif(NOT M2F_CUDA_ARCHITECTURES)
  # Turing to Blackwell, Orin (87) and Thor (110) among them; code for newer ones is made from
  # the last entry's PTX.
  set(M2F_CUDA_ARCHITECTURES 75-real 80-real 86-real 87-real 89-real 90-real)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND M2F_CUDA_ARCHITECTURES 100-real 120-real)
  endif()
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
    list(APPEND M2F_CUDA_ARCHITECTURES 110-real)
  endif()
  list(APPEND M2F_CUDA_ARCHITECTURES 90-virtual)
endif()

if(NOT M2F_TENSORRT)
  return()
endif()
# An SDK or JetPack; else the headers that a wheel carries. -I: pip's isolated builds hide the
# environment's packages from Python otherwise.
find_program(M2F_PYTHON NAMES ${Python_EXECUTABLE} python3 python)
if(M2F_PYTHON)
  execute_process(
    COMMAND ${M2F_PYTHON} -I -c "import importlib.util as u; \
s = u.find_spec('kernel_lens'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(M2F_TENSORRT_HEADERS NvInferRuntime.h
  HINTS ${TENSORRT_ROOT} $ENV{TENSORRT_ROOT} /usr/local/tensorrt /opt/tensorrt
  PATHS ${wheel}/include/tensorrt
  PATH_SUFFIXES include)
if(M2F_TENSORRT_HEADERS)
  set(M2F_TENSORRT_INCLUDE ${M2F_TENSORRT_HEADERS})
  message(STATUS "m2f: TensorRT's headers are in ${M2F_TENSORRT_INCLUDE}")
  return()
endif()
string(CONCAT problem "m2f: TensorRT's headers are not found; set TENSORRT_ROOT to an SDK, or "
  "run: pip install --no-deps kernel-lens==2.0.1")
if(M2F_TENSORRT STREQUAL "ON")
  message(FATAL_ERROR "${problem}")
endif()
message(STATUS "${problem}; the TensorRT plugins are left out")
