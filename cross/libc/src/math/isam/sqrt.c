#include <math.h>

// One instruction on both ISAs, correctly rounded.
double sqrt(double x)
{
	return __builtin_elementwise_sqrt(x);
}
