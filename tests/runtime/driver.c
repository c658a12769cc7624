// A stand-in for libcuda.so.1: two GPUs, or what the environment says.
#include <stdlib.h>
#include <string.h>

static int fails(const char* name) {
  const char* given = getenv("STAND_IN_FAILS");
  return given != NULL && strcmp(given, name) == 0 ? 100 : 0;
}

int cuInit(unsigned flags) { return flags == 0 ? fails("cuInit") : 1; }

int cuDriverGetVersion(int* version) {
  *version = 13020;
  return 0;
}

int cuDeviceGetCount(int* count) {
  const char* given = getenv("STAND_IN_GPUS");
  *count = given != NULL ? atoi(given) : 2;
  return fails("cuDeviceGetCount");
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal + 40;  // a handle is not a number
  return 0;
}

int cuDeviceGetName(char* name, int size, int device) {
  strncpy(name, device == 40 ? "First GPU" : "Second GPU", (size_t)size);
  return device < 40;
}

int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  *bytes = (size_t)(device == 40 ? 8 : 24) << 30;
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (attribute == 75) *value = device == 40 ? 8 : 12;  // COMPUTE_CAPABILITY_MAJOR
  if (attribute == 76) *value = device == 40 ? 9 : 0;   // COMPUTE_CAPABILITY_MINOR
  return attribute == 75 || attribute == 76 ? 0 : 1;
}

int cuGetErrorString(int status, const char** text) {
  *text = status == 100 ? "no CUDA-capable device is detected" : "unknown";
  return 0;
}

// Graphs, for pycuda, which has none: handles must come back as they were given out.
static void *const kStream = (void*)0x5500, *const kGraph = (void*)0x7900,
                   *const kExec = (void*)0x8000;

int cuStreamBeginCapture_v2(void* stream, int mode) {
  return stream == kStream && mode == 1 ? fails("cuStreamBeginCapture_v2") : 1;
}

int cuStreamEndCapture(void* stream, void** graph) {
  *graph = kGraph;
  return stream != kStream;
}

int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long flags) {
  *exec = kExec;
  return graph != kGraph || flags != 0;
}

int cuGraphDestroy(void* graph) { return graph != kGraph; }

int cuGraphLaunch(void* exec, void* stream) { return exec != kExec || stream != kStream; }

int cuGraphExecDestroy(void* exec) { return exec != kExec; }
