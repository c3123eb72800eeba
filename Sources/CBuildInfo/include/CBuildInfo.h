#ifndef SPEGEL_BUILD_INFO_H
#define SPEGEL_BUILD_INFO_H

/// The commit that the build was told of in the environment variable SPEGEL_COMMIT; empty when it was not.
const char *spegel_build_commit(void);

#endif
