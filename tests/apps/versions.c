/* Says which MPI and which UCX a program of this MPI runs with.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "verify.h"
#include <dlfcn.h>
#include <string.h>

int main(int argc, char **argv)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Init(&argc, &argv);
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, "\n,")] = 0;
    for (char *at = mpi; *at; at++) {
        *at = *at == '\t' ? ' ' : *at;
    }
    void *library = dlopen("libucp.so.0", RTLD_LAZY | RTLD_NOLOAD);
    const char *(*version)(void) = NULL;
    if (library != NULL) {
        *(void **)&version = dlsym(library, "ucp_get_version_string");
    }
    printf("OK versions %s, UCX %s\n", mpi, version ? version() : "is not in the process");
    MPI_Finalize();
    return 0;
}
