#include "projector/model_paths.h"

#include <sys/stat.h>

#include "data/files/path.h"

char *model_file_beside(const char *path, const char *name, Error *err) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return path_join(path, name, err);
    return path_format(err, "%.*s%s", (int)(path_name(path) - path), path, name);
}
