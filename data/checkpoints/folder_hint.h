/* folder_hint.h - recognizes what was given in place of a model folder, and what to do about it. */
#ifndef EASYFIRST_DATA_CHECKPOINTS_FOLDER_HINT_H
#define EASYFIRST_DATA_CHECKPOINTS_FOLDER_HINT_H

/* What an unexpected path is, as the end of a message after "<path>: ": a cache's root, a training
 * run, a DeepSpeed checkpoint, an adapter, weights of another framework, a dangling link, the name
 * of a repository. The caller frees it; NULL if not recognized or out of memory. */
char *folder_hint(const char *path);

/* The same for an adapter next to a model's weights: NULL unless `path` is a folder with an
 * adapter_config.json or the weights that belong to one. */
char *folder_adapter_hint(const char *path);

#endif
