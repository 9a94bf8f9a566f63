#include <math.h>

// One instruction on both ISAs, correctly rounded.
float sqrtf(float x)
{
	return __builtin_elementwise_sqrt(x);
}
