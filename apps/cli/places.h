/* places.h - where the files that come with the program are: in the source tree, or where `make
 * install` puts them. */
#ifndef EASYFIRST_APPS_CLI_PLACES_H
#define EASYFIRST_APPS_CLI_PLACES_H

/* The path of `tree` (below data/ of the sources, whose build folder the program is in), or of
 * `installed` (below PREFIX/share/easyfirst), of which at least `probe` in it exists ("" for itself).
 * The caller frees it. NULL if there is none. */
char *place_find(const char *tree, const char *installed, const char *probe);

#endif
