/* text_list.h - a list of texts that belong to somebody else: an argv, a JSON object. */
#ifndef EASYFIRST_DATA_FILES_TEXT_LIST_H
#define EASYFIRST_DATA_FILES_TEXT_LIST_H

/* Free `items`, not the texts. */
typedef struct TextList {
    const char **items;
    int count;
} TextList;

#endif
