# The CUDA kernels, and the libraries that bring them to frameworks.

add_library(m2f_cuda OBJECT
  ops/masked_attention/cuda.cu
  ops/masked_attention/op.cc
  ops/ms_deform_attn/cuda.cu
  ops/ms_deform_attn/op.cc)

# m2f_add_cuda_library(name sources...): a library that shows a framework's own functions only
# and needs nothing but the driver: CUDA's runtime is inside.
function(m2f_add_cuda_library name)
  add_library(${name} SHARED ${ARGN})
  target_link_libraries(${name} PRIVATE m2f_cuda)
  target_link_options(${name} PRIVATE
    -Wl,--exclude-libs,ALL -Wl,--no-undefined -static-libstdc++ -static-libgcc)
  install(TARGETS ${name} LIBRARY DESTINATION m2f/plugins)
  list(APPEND M2F_CUDA_TARGETS ${name})
  set(M2F_CUDA_TARGETS ${M2F_CUDA_TARGETS} PARENT_SCOPE)
endfunction()

set(M2F_CUDA_TARGETS m2f_cuda)
if(M2F_TENSORRT_INCLUDE)
  m2f_add_cuda_library(m2f_trt
    tensorrt/fields.cc
    tensorrt/library.cc
    tensorrt/tensors.cc)
  target_include_directories(m2f_trt SYSTEM PRIVATE ${M2F_TENSORRT_INCLUDE})
endif()

set_target_properties(${M2F_CUDA_TARGETS} PROPERTIES
  CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden
  CUDA_ARCHITECTURES "${M2F_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static
  VISIBILITY_INLINES_HIDDEN ON POSITION_INDEPENDENT_CODE ON)
foreach(target IN LISTS M2F_CUDA_TARGETS)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(${target} SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
  if(M2F_WERROR)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-Werror>
      $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Werror>)
  endif()
endforeach()
