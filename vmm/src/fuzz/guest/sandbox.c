#include "executor.h"
void enter_sandbox(uint32_t slow) { fatal("no sandbox", slow); }
void arm_filter(void) {}
