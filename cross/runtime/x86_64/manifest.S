#define MACHINE 62
#include "../manifest.inc"
