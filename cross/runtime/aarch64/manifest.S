#define MACHINE 183
#include "../manifest.inc"
