/* folder_hint.h - what people have in place of a model's folder, with the way out of it. */
#ifndef EASYFIRST_DATA_CHECKPOINTS_FOLDER_HINT_H
#define EASYFIRST_DATA_CHECKPOINTS_FOLDER_HINT_H

/* What a path that is not what was expected is, as the end of a message after "<path>: ": a cache's
 * root, a training run, a DeepSpeed checkpoint, an adapter, weights of another framework, a
 * dangling link, the name of a repository. The caller frees it; NULL where nothing is recognised or
 * there is no memory. */
char *folder_hint(const char *path);

/* The same for an adapter beside a model's weights: NULL unless `path` is a folder with an
 * adapter_config.json or the weights that belong to one. */
char *folder_adapter_hint(const char *path);

#endif
