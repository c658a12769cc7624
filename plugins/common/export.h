#pragma once

// What a shared library shows; everything else is hidden.
#define M2F_EXPORT __attribute__((visibility("default")))
