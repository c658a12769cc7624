# The CUDA kernels, and what brings them to frameworks: libm2f_trt, and in libm2f_ort the ops for
# ONNX Runtime's CUDA provider. Both need nothing but the driver: CUDA's runtime is inside.

add_library(m2f_cuda OBJECT
  ops/masked_attention/cuda.cu
  ops/ms_deform_attn/cuda.cu)
# Post-processing where the network's outputs lie.
add_library(m2f_images_cuda OBJECT images/cuda.cu)
set(M2F_CUDA_TARGETS m2f_cuda m2f_images_cuda)

target_sources(m2f_ort PRIVATE images/cuda_c_api.cc ort/register_cuda.cc)
target_compile_definitions(m2f_ort PRIVATE M2F_HAS_CUDA)
target_include_directories(m2f_ort SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(m2f_ort PRIVATE m2f_cuda m2f_images_cuda)
set_target_properties(m2f_ort PROPERTIES CUDA_RUNTIME_LIBRARY Static)

if(M2F_TENSORRT_INCLUDE)
  add_library(m2f_trt SHARED
    ops/masked_attention/op.cc
    ops/ms_deform_attn/op.cc
    tensorrt/fields.cc
    tensorrt/library.cc
    tensorrt/tensors.cc)
  target_include_directories(m2f_trt SYSTEM PRIVATE ${M2F_TENSORRT_INCLUDE})
  target_link_libraries(m2f_trt PRIVATE m2f_cuda)
  target_link_options(m2f_trt PRIVATE
    -Wl,--exclude-libs,ALL -Wl,--no-undefined -static-libstdc++ -static-libgcc)
  install(TARGETS m2f_trt LIBRARY DESTINATION m2f/plugins)
  list(APPEND M2F_CUDA_TARGETS m2f_trt)
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
