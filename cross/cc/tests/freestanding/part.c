const char *const parts[] = {"abc\n", "def\n", "ghi\n"};
const char *part(int n) { return parts[n]; }
