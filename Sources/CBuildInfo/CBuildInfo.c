#include "CBuildInfo.h"

const char *spegel_build_commit(void) {
    return SPEGEL_COMMIT;
}
